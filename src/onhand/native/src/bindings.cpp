// What Python sees of the native engine.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>

#include "conversation.h"
#include "crowding.h"
#include "description.h"
#include "kernels.h"
#include "processor.h"
#include "timing.h"

namespace nb = nanobind;
using namespace onhand;

namespace {

constexpr size_t kBlock = size_t{64} << 20;  // of an arena: many matrices of most models

const Kernels& named(const std::string& name) {
  for (const Kernels* one : usable())
    if (name.empty() || name == one->name) return *one;
  throw std::invalid_argument("this processor has no instruction set " + name);
}

void make_chooser(Chooser* self, double temperature, int64_t top_k, double top_p, double min_p,
                  float penalty, int vocab_size, nb::object forbidden) {
  // Written so that what is not a number fails.
  const bool fits = temperature >= 0 && top_k >= 0 && top_p > 0 && min_p >= 0 && min_p <= 1 &&
                    penalty > 0 && vocab_size > 0 && vocab_size <= kMostWidth;
  expect(fits, "sampling is out of range");
  const Sampling how{temperature, static_cast<int>(std::min<int64_t>(top_k, vocab_size)), top_p,
                     min_p, penalty};
  Bytes flags;
  if (!forbidden.is_none()) {
    flags = nb::cast<Bytes>(forbidden, false);
    expect(flags.size() == static_cast<size_t>(vocab_size), "forbidden has another size");
  }
  new (self) Chooser(how, vocab_size, forbidden.is_none() ? nullptr : flags.data());
}

// Choose from a row of scores as a step does from its own.
int choose_alone(const Chooser& self, Vector logits, double random) {
  expect_aligned(logits);
  expect(logits.shape(0) == static_cast<size_t>(self.vocab_size()), "logits have another size");
  const int n = self.vocab_size();
  std::vector<float> scores(logits.data(), logits.data() + n);
  self.adjust(scores.data(), 0, n);
  Best best;
  best.look<void>(scores.data(), n, 0);
  Choice choice{&self, random};
  ChoiceSpace space;
  if (!choice.settle(best))
    choice.token = self.draw(scores.data(), nullptr, n, best.top, random, space);
  return choice.token;
}

class Decoder {
 public:
  Decoder(nb::dict description, nb::list layers, int n_threads, const std::string& isa)
      : kernels_(named(isa)), pool_(checked_threads(n_threads)), crowding_(n_threads),
        model_(read_model(description, layers, keep_)) {
    work_ = std::make_unique<Workspace>(model_, n_threads);
    rows_.reserve(kMostRows);
  }

  Conversation conversation(std::shared_ptr<Adapter> adapter) const {
    expect(adapter == nullptr || adapter->owner == this, "an adapter is another decoder's");
    std::vector<int> head_dim;
    for (const Layer& layer : model_.layers) head_dim.push_back(layer.head_dim);
    return Conversation(model_.pages, std::move(head_dim), model_.context, std::move(adapter));
  }

  // Of each layer's four matrices and then of the head: None, or first (rank, inputs) and second
  // (outputs, rank).
  std::shared_ptr<Adapter> adapter(nb::list pairs) {
    const std::vector<const Linear*> matrices = adaptable();
    expect(pairs.size() == matrices.size(), "a pair of factors, or None, for each matrix");
    auto made = std::make_shared<Adapter>(static_cast<int>(matrices.size()));
    made->owner = this;
    for (size_t i = 0; i < matrices.size(); ++i) {
      if (pairs[i].is_none()) continue;
      std::pair<Table, Table> factors;
      expect(nb::try_cast(pairs[i], factors, false), "an adapter has no two tables of float32");
      const auto& [first, second] = factors;
      expect_aligned(first);
      expect_aligned(second);
      const int n_inputs = matrices[i]->n_inputs(), n_outputs = matrices[i]->n_outputs();
      const size_t rank = first.shape(0);
      expect(rank < size_t{1} << 20 && first.shape(1) == size_t(n_inputs) &&
                 second.shape(0) == size_t(n_outputs) && second.shape(1) == rank,
             "an adapter has another shape");
      made->set(static_cast<int>(i), static_cast<int>(rank), first.data(), n_inputs, second.data(),
                n_outputs);
    }
    nb::gil_scoped_release free;
    std::lock_guard<std::mutex> one_at_a_time(mutex_);
    work_->fit(*made);
    return made;
  }

  // Append kRotaryBlock positions to a table: (kRotaryBlock, 2 * half).
  void extend(int table, nb::object block) {
    expect(table >= 0 && size_t(table) < model_.rotary.size(), "there is no such rotary table");
    RotaryTable& to = *model_.rotary[table];
    Table found;
    expect(nb::try_cast(block, found, false), "a block of positions is no table of float32");
    expect_aligned(found);
    expect(found.shape(0) == size_t{kRotaryBlock} && found.shape(1) == 2 * size_t(to.half),
           "a block of positions has another shape");
    keep_.push_back(block);
    nb::gil_scoped_release free;
    std::lock_guard<std::mutex> one_at_a_time(mutex_);
    to.blocks.push_back(found.data());
  }

  // Append tokens to conversations; (B, V) scores after the last of each, or (T, V) after each
  // token of the only one.
  nb::ndarray<nb::numpy, float> step(std::vector<Conversation*> conversations,
                                     std::vector<Tokens> tokens, bool every) {
    expect(conversations.size() == tokens.size(), "a row of tokens for each conversation");
    expect(!every || conversations.size() == 1, "every token is scored of one conversation only");
    for (const Tokens& row : tokens) {
      expect_aligned(row);
      expect(row.shape(0) <= size_t(model_.context), kTooLong);
    }
    const size_t V = model_.vocab_size;
    const size_t n = every ? tokens[0].shape(0) : conversations.size();
    auto scores = new_array<float>({n, V});
    std::vector<Request> requests;
    for (size_t b = 0; b < conversations.size(); ++b)
      requests.push_back({own(conversations[b]), tokens[b].data(), tokens[b].shape(0),
                          scores.data() + b * V, every, nullptr});
    nb::gil_scoped_release free;
    std::lock_guard<std::mutex> one_at_a_time(mutex_);
    run(requests);
    return scores;
  }

  // Append to each conversation one token, an int, or a row of them, and choose what follows; the
  // tokens take the place of `randoms`, -1 for a row without a chooser. See `Choice` for others.
  void choose(nb::list conversations, nb::list tokens, nb::list choosers, nb::list randoms) {
    // Of each thread, kept between steps: what a step needs it has after the first.
    static thread_local std::vector<Request> requests;
    static thread_local std::vector<Choice> choices;
    static thread_local std::vector<int64_t> single;
    const size_t n = conversations.size();
    expect(tokens.size() == n && choosers.size() == n && randoms.size() == n,
           "tokens, a chooser and a random number for each conversation");
    std::vector<Tokens> several;
    requests.clear();
    choices.assign(n, Choice{});
    single.resize(n);
    for (size_t b = 0; b < n; ++b) {
      Conversation* conversation = own(nb::cast<Conversation*>(conversations[b]));
      Request one{conversation, &single[b], 1, nullptr, false, nullptr};
      if (PyLong_Check(nb::handle(tokens[b]).ptr())) {
        single[b] = nb::cast<int64_t>(tokens[b]);
      } else {
        several.push_back(nb::cast<Tokens>(tokens[b], false));
        expect_aligned(several.back());
        one.tokens = several.back().data();
        one.n = several.back().shape(0);
      }
      if (!choosers[b].is_none()) {
        choices[b].by = &nb::cast<const Chooser&>(choosers[b]);
        choices[b].random = nb::cast<double>(randoms[b]);
        expect(choices[b].by->vocab_size() == model_.vocab_size, kOtherVocabulary);
        one.choice = &choices[b];
      }
      requests.push_back(one);
    }
    {
      nb::gil_scoped_release free;
      std::lock_guard<std::mutex> one_at_a_time(mutex_);
      run(requests);
    }
    for (size_t b = 0; b < n; ++b) randoms[b] = nb::int_(choices[b].token);
  }

  // Append tokens to a conversation and choose after each of them, as if those before were right;
  // the tokens take the place of `randoms`.
  void choose_each(Conversation& conversation, Tokens tokens, const Chooser& chooser,
                   nb::list randoms) {
    static thread_local std::vector<Choice> choices;
    static thread_local std::vector<Request> request;
    const size_t n = tokens.shape(0);
    expect(randoms.size() == n, "a random number for each token");
    expect(chooser.vocab_size() == model_.vocab_size, kOtherVocabulary);
    expect_aligned(tokens);
    choices.assign(n, Choice{});
    for (size_t t = 0; t < n; ++t) {
      choices[t].by = &chooser;
      choices[t].random = nb::cast<double>(randoms[t]);
    }
    request.assign(1, {own(&conversation), tokens.data(), n, nullptr, true, choices.data()});
    {
      nb::gil_scoped_release free;
      std::lock_guard<std::mutex> one_at_a_time(mutex_);
      run(request);
    }
    for (size_t t = 0; t < n; ++t) randoms[t] = nb::int_(choices[t].token);
  }

  // Score in two stages wherever a token is chosen and nobody asks for its scores: all rows by the
  // coarse copy of the head, and `n_candidates` tiles, about, by the head itself.
  void use_two_stages(nb::handle coarse, int n_candidates) {
    const Packed& packed = nb::cast<const Matrix&>(coarse).packed();
    const Packed& head = model_.head.factors.back();
    expect(packed.n_rows == head.n_rows && packed.n_inputs == head.n_inputs,
           "the coarse head has another shape");
    expect(packed.format.bits == kCoarse.bits && packed.format.group == kCoarse.group &&
               packed.format.symmetric,
           "the coarse head has another format");
    expect(n_candidates > 0, "candidates must be 1 or more");
    std::lock_guard<std::mutex> between_steps(mutex_);
    keep_.push_back(nb::borrow(coarse));
    model_.n_candidates = n_candidates;
    model_.coarse = packed;
  }

  // Multiply many rows at once, as of prompts, in bf16; false where there is no fast way to.
  bool use_bf16_prefill() {
    if (kernels_.bf16_product == nullptr) return false;
    std::lock_guard<std::mutex> between_steps(mutex_);
    work_->fit_bf16(model_);
    model_.bf16_prefill = true;
    return true;
  }

  // Compute later steps with so many threads, 1 to as many as it was made for.
  void use_threads(int n) {
    expect(n >= 1 && size_t(n) <= work_->own.size(), "threads must be 1 to those it was made with");
    nb::gil_scoped_release free;
    std::lock_guard<std::mutex> between_steps(mutex_);
    try {
      pool_.resize(n);
    } catch (...) {
      crowding_.allow(pool_.size());
      throw;
    }
    crowding_.allow(n);
  }

  // Threads that steps may use; while others want the cores as well, some use fewer.
  int threads() const { return crowding_.most(); }
  int computing() const { return pool_.size(); }

  // Whether steps use fewer threads while others want the cores as well.
  void yield_cores(bool yields) {
    std::lock_guard<std::mutex> between_steps(mutex_);
    yields_ = yields;
  }

  // The tiles that the second stage scored for the first row of the last step.
  std::vector<int> picked() const {
    return work_->picked.empty() ? std::vector<int>{} : work_->picked[0];
  }

  const char* isa() const { return kernels_.name; }

 private:
  std::vector<const Linear*> adaptable() const {
    std::vector<const Linear*> all;
    for (const Layer& layer : model_.layers)
      all.insert(all.end(), {&layer.qkv, &layer.out, &layer.inner, &layer.down});
    all.push_back(&model_.head);
    return all;
  }

  // Tokens for one conversation, and who wants to know what follows.
  struct Request {
    Conversation* conversation;
    const int64_t* tokens;
    size_t n;
    float* scores;  // after the last token, or after each; null if nobody wants them
    bool every;
    Choice* choice;  // likewise
  };

  static constexpr const char* kTooLong = "tokens go beyond the context";
  static constexpr const char* kOtherVocabulary = "a chooser of another vocabulary";

  Conversation* own(Conversation* one) const {
    expect(one != nullptr && one->is_of(model_.pages), "a conversation is another decoder's");
    return one;
  }

  // Everything that a step relies on, before it changes anything.
  void check(const std::vector<Request>& requests) const {
    for (size_t b = 0; b < requests.size(); ++b) {
      const Request& one = requests[b];
      for (size_t i = 0; i < b; ++i)
        expect(requests[i].conversation != one.conversation, "a conversation is given twice");
      expect(one.n > 0, "a row of tokens is empty");
      const int start = one.conversation->memory.length();
      expect(one.n <= size_t(model_.context) - start, kTooLong);
      for (size_t t = 0; t < one.n; ++t)
        expect(one.tokens[t] >= 0 && one.tokens[t] < model_.vocab_size, "there is no such token");
      check_positions(start + static_cast<int>(one.n));
    }
    // What may fail for want of memory.
    for (const Request& one : requests)
      one.conversation->memory.reserve(static_cast<int>(one.n));
  }

  // Every position that a conversation of this length turns by must be there.
  void check_positions(int length) const {
    for (const Layer& layer : model_.layers) {
      const RotaryTable* table = layer.rotary.of(length);
      expect(table == nullptr || table->n_positions() >= length, "rotary positions are missing");
    }
  }

  void run(const std::vector<Request>& requests) {
    check(requests);
    rows_.clear();  // of one that failed
    size_t n_scored = 0;
    const auto flush = [&] {
      if (!rows_.empty()) compute();
      rows_.clear();
      n_scored = 0;
    };
    for (const Request& one : requests) {
      Memory& memory = one.conversation->memory;
      const Adapter* adapter = one.conversation->adapter.get();
      const int start = memory.length(), n = static_cast<int>(one.n), length = start + n;
      for (int t = 0; t < n; ++t) {
        const bool last = t + 1 == n;
        float* scores = one.scores == nullptr || !(one.every || last) ? nullptr : one.scores;
        if (scores != nullptr && one.every) scores += size_t(t) * model_.vocab_size;
        Choice* choice = one.choice == nullptr || !(one.every || last) ? nullptr : one.choice;
        if (choice != nullptr && one.every) choice += t;
        rows_.push_back({&memory, start + t, static_cast<int>(one.tokens[t]), scores, choice,
                         adapter, length});
        n_scored += scores != nullptr || choice != nullptr;
        if (rows_.size() == size_t(kMostRows) || n_scored == kMostScores)
          flush();
      }
      memory.set_length(length);
    }
    flush();
  }

  void compute() {
    using Seconds = std::chrono::duration<double>;
    const auto begun = std::chrono::steady_clock::now();
    kernels_.step(model_, *work_, pool_, rows_);
    const auto now = std::chrono::steady_clock::now();
    const double taken = Seconds(now - begun).count(), slept = pool_.take_slept();
    const double clock = Seconds(now.time_since_epoch()).count();
    if (!yields_ || !crowding_.after(clock, taken, slept)) return;
    try {
      pool_.resize(crowding_.threads());
    } catch (const std::system_error&) {  // no more threads: there is the caller's own
      crowding_.settle(clock, pool_.size());
    }
  }

  std::vector<nb::object> keep_;
  const Kernels& kernels_;
  Pool pool_;
  Crowding crowding_;
  bool yields_ = true;
  Model model_;
  std::unique_ptr<Workspace> work_;
  std::vector<Row> rows_;  // of the step that runs
  std::mutex mutex_;
};

}  // namespace

NB_MODULE(_native, m) {
  m.doc() = "Packed matrices, and a decoder's step over them.";
  m.def("instruction_sets", [] {
    std::vector<std::string> names;
    for (const Kernels* one : usable()) names.push_back(one->name);
    return names;
  });
  nb::class_<Arena>(m, "Arena").def("__init__", [](Arena* self) { new (self) Arena(kBlock); });
  nb::class_<Matrix>(m, "Matrix")
      .def(nb::init<int, int, int, int, Bytes, Halves, nb::object, int, Arena*>(),
           nb::arg("bits"), nb::arg("group"), nb::arg("n_rows"), nb::arg("n_inputs"),
           nb::arg("codes"), nb::arg("scales"), nb::arg("zeros").none(), nb::arg("threads") = 1,
           nb::arg("arena").none() = nb::none())
      .def("time_products",
           [](const Matrix& self, int rows, int n_threads, int runs) {
             expect(rows >= 1 && rows <= kMostRows && runs >= 1, "rows or runs are out of range");
             checked_threads(n_threads);
             nb::gil_scoped_release free;
             return time_products(named(""), self.packed(), rows, n_threads, runs);
           })
      .def("coarse", [](const Matrix& self, int n_threads) { return new Matrix(self, n_threads); })
      .def_prop_ro("n_bytes", [](const Matrix& self) { return self.packed().bytes(); });
  m.attr("ROTARY_BLOCK") = kRotaryBlock;
  nb::class_<Adapter>(m, "Adapter");
  nb::class_<Chooser>(m, "Chooser")
      .def("__init__", make_chooser, nb::arg("temperature"), nb::arg("top_k"), nb::arg("top_p"),
           nb::arg("min_p"), nb::arg("penalty"), nb::arg("vocab_size"),
           nb::arg("forbidden").none())
      .def("see", &Chooser::see)
      .def_prop_ro("n_seen", &Chooser::n_seen)
      .def("choose", choose_alone);
  nb::class_<Conversation>(m, "Conversation")
      .def_prop_ro("length", [](const Conversation& self) { return self.memory.length(); })
      .def("rewind", &Conversation::rewind)
      .def("state", &Conversation::state)
      .def("span", &Conversation::span)
      .def("load", &Conversation::load)
      .def("append", &Conversation::append)
      // A fork shares the pages, and needs the decoder as long as the first does.
      .def("fork", [](const Conversation& self) { return Conversation(self); },
           nb::keep_alive<0, 1>());
  nb::class_<Decoder>(m, "Decoder")
      .def(nb::init<nb::dict, nb::list, int, const std::string&>())
      .def("conversation", &Decoder::conversation, nb::arg("adapter").none(),
           nb::keep_alive<0, 1>())
      .def("adapter", &Decoder::adapter, nb::keep_alive<0, 1>())
      .def("extend", &Decoder::extend)
      .def("step", &Decoder::step)
      .def("choose", &Decoder::choose)
      .def("use_two_stages", &Decoder::use_two_stages)
      .def("use_bf16_prefill", &Decoder::use_bf16_prefill)
      .def("use_threads", &Decoder::use_threads)
      .def("yield_cores", &Decoder::yield_cores)
      .def_prop_ro("threads", &Decoder::threads)
      .def_prop_ro("computing", &Decoder::computing)
      .def_prop_ro("picked", &Decoder::picked)
      .def("choose_each", &Decoder::choose_each)
      .def_prop_ro("isa", &Decoder::isa);
}
