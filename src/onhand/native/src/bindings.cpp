// What Python sees of the native engine.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <new>
#include <stdexcept>
#include <thread>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "coarse.h"
#include "conversation.h"
#include "kernels.h"
#include "pack.h"
#include "processor.h"

namespace nb = nanobind;
using namespace onhand;

namespace {

using Bytes = nb::ndarray<const uint8_t, nb::c_contig, nb::device::cpu>;
using Halves = nb::ndarray<const uint16_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Vector = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Table = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Tokens = nb::ndarray<const int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kSlack = 8192;  // prefetches run past the end

std::vector<const Kernels*> usable() {
  std::vector<const Kernels*> found;
#if defined(__x86_64__) && defined(__GNUC__)
  if (has_amx()) found.push_back(&kAmx);
  if (has_avx512()) found.push_back(&kAvx512);
  if (has_avx2()) found.push_back(&kAvx2);
#endif
  found.push_back(&kPortable);
  return found;
}

const Kernels& named(const std::string& name) {
  for (const Kernels* one : usable())
    if (name.empty() || name == one->name) return *one;
  throw std::invalid_argument("this processor has no instruction set " + name);
}

// A packed matrix and its memory, in large pages where the system has them.
class Matrix {
 public:
  Matrix(int bits, int group, int n_rows, int n_inputs, Bytes codes, Halves scales,
         nb::object zeros, int n_threads)
      : shape_(checked({bits, group, zeros.is_none()}, n_rows, n_inputs)) {
    const size_t rows = n_rows, groups = shape_.n_groups;
    expect(codes.size() == rows * groups * group * bits / 8, "codes have another size");
    expect(scales.shape(0) == rows && scales.shape(1) == groups, "scales have another shape");
    Stored from{shape_.format, n_rows, n_inputs, codes.data(), scales.data(), nullptr};
    Bytes kept;
    if (!zeros.is_none()) {
      kept = nb::cast<Bytes>(zeros);
      expect(kept.size() == rows * ((groups * bits + 7) / 8), "zeros have another size");
      from.zeros = kept.data();
    }
    fill(n_threads, [&](int begin, int end) { pack(from, shape_, memory_.get(), begin, end); });
  }

  // A coarse copy of a matrix.
  Matrix(const Matrix& of, int n_threads)
      : shape_(layout(kCoarse, of.shape_.n_rows, of.shape_.n_inputs)) {
    fill(n_threads, [&](int begin, int end) { coarsen(of.shape_, memory_.get(), begin, end); });
  }

  const Packed& packed() const { return shape_; }

 private:
  template <class Fill>
  void fill(int n_threads, Fill fill_tiles) {
    size_t size = (shape_.bytes() + kSlack + kHugePage - 1) / kHugePage * kHugePage;
    if (shape_.bytes() < kHugePage) size = (shape_.bytes() + kSlack + 63) / 64 * 64;
    memory_.reset(static_cast<uint8_t*>(
        std::aligned_alloc(shape_.bytes() < kHugePage ? 64 : kHugePage, size)));
    if (!memory_) throw std::bad_alloc();
#if defined(__linux__)
    if (shape_.bytes() >= kHugePage) madvise(memory_.get(), size, MADV_HUGEPAGE);
#endif
    shape_.data = memory_.get();
    nb::gil_scoped_release free;
    // Tiles are apart from each other, so threads share a large matrix without a word.
    const int n = shape_.bytes() < kHugePage ? 1 : std::max(1, n_threads);
    const auto part = [&](int i) {
      const int64_t tiles = shape_.n_tiles;
      fill_tiles(static_cast<int>(tiles * i / n), static_cast<int>(tiles * (i + 1) / n));
    };
    std::vector<std::thread> others;
    for (int i = 1; i < n; ++i) others.emplace_back([&, i] { part(i); });
    part(0);
    for (auto& one : others) one.join();
  }
  static Packed checked(const Format& format, int n_rows, int n_inputs) {
    const int bits = format.bits, group = format.group;
    expect(bits == 2 || bits == 3 || bits == 4 || bits == 8, "bits must be 2, 3, 4 or 8");
    expect(group == 32 || group == 64 || group == 128, "group must be 32, 64 or 128");
    expect(n_rows > 0 && n_inputs > 0, "rows and inputs must be 1 or more");
    return layout(format, n_rows, n_inputs);
  }
  struct Free { void operator()(uint8_t* p) const { std::free(p); } };
  Packed shape_;
  std::unique_ptr<uint8_t, Free> memory_;
};

void make_chooser(Chooser* self, double temperature, int64_t top_k, double top_p, double min_p,
                  float penalty, int vocab_size, nb::object forbidden) {
  expect(vocab_size > 0 && temperature >= 0 && top_k >= 0 && top_p > 0, "sampling is out of range");
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

// Reads a dictionary that `onhand.device.engines.native` made.
class Reader {
 public:
  Reader(nb::dict from, std::vector<nb::object>& keep) : from_(from), keep_(keep) {}

  bool has(const char* key) const { return from_.contains(key) && !from_[key].is_none(); }
  int number(const char* key) const { return nb::cast<int>(from_[key]); }
  float real(const char* key) const { return nb::cast<float>(from_[key]); }
  std::string word(const char* key) const { return nb::cast<std::string>(from_[key]); }

  const float* vector(const std::string& key, size_t size) const {
    if (!has(key.c_str())) return nullptr;
    nb::object kept = from_[key.c_str()];
    keep_.push_back(kept);
    Vector found = nb::cast<Vector>(kept, false);
    expect(found.shape(0) == size, "a vector has another size");
    return found.data();
  }
  const float* table(const char* key, size_t columns) const {
    if (!has(key)) return nullptr;
    nb::object kept = from_[key];
    keep_.push_back(kept);
    Table found = nb::cast<Table>(kept, false);
    expect(found.shape(1) == columns, "a table has another size");
    return found.data();
  }
  Norm norm(const std::string& key, size_t size) const {
    return {vector(key, size), vector(key + "_bias", size)};
  }
  Linear linear(const std::string& key, int n_inputs, int n_outputs) const {
    Linear made;
    for (nb::handle one : nb::cast<nb::list>(from_[key.c_str()])) {
      keep_.push_back(nb::borrow(one));
      made.factors.push_back(nb::cast<const Matrix&>(one).packed());
      expect(made.factors.back().n_inputs == n_inputs, "a matrix has another width");
      n_inputs = made.factors.back().n_rows;
    }
    expect(n_inputs == n_outputs, "a matrix has another height");
    made.bias = vector(key + "_bias", n_outputs);
    return made;
  }

 private:
  nb::dict from_;
  std::vector<nb::object>& keep_;
};

class Decoder {
 public:
  Decoder(nb::dict description, nb::list layers, int n_threads, const std::string& isa)
      : kernels_(named(isa)), pool_(n_threads) {
    const Reader from(description, keep_);
    model_.pages.kept = from.word("kv") == "int8" ? Kept::int8 : Kept::fp16;
    model_.width = from.number("width");
    model_.vocab_size = from.number("vocab_size");
    model_.epsilon = from.real("norm_epsilon");
    model_.embed_scale = from.real("embed_scale");
    model_.attention_cap = from.real("attention_softcap");
    model_.logit_cap = from.real("logit_softcap");
    model_.gated = from.number("gated") != 0;
    const std::string activation = from.word("activation");
    model_.activation = activation == "silu"   ? Activation::silu
                        : activation == "gelu" ? Activation::gelu
                                               : Activation::gelu_tanh;
    model_.final_norm = from.norm("final_norm", model_.width);
    model_.positions = from.table("positions", model_.width);
    model_.embed = from.linear("embed", model_.width, model_.vocab_size).factors.front();
    model_.head = from.linear("head", model_.width, model_.vocab_size);
    for (nb::handle half : nb::cast<nb::list>(description["rotary_halves"])) {
      model_.rotary.push_back(std::make_unique<RotaryTable>());
      model_.rotary.back()->half = nb::cast<int>(half);
    }
    for (nb::handle one : layers) add(Reader(nb::cast<nb::dict>(one), keep_));
    model_.head.number = 4 * static_cast<int>(model_.layers.size());
    work_ = std::make_unique<Workspace>(model_, n_threads);
    rows_.reserve(kMostRows);
  }

  Conversation conversation(std::shared_ptr<Adapter> adapter) const {
    std::vector<int> head_dim;
    for (const Layer& layer : model_.layers) head_dim.push_back(layer.head_dim);
    return Conversation(model_.pages, std::move(head_dim), std::move(adapter));
  }

  // Of each layer's four matrices and then of the head: None, or first (rank, inputs) and second
  // (outputs, rank).
  std::shared_ptr<Adapter> adapter(nb::list pairs) {
    const std::vector<const Linear*> matrices = adaptable();
    expect(pairs.size() == matrices.size(), "a pair of factors, or None, for each matrix");
    auto made = std::make_shared<Adapter>(static_cast<int>(matrices.size()));
    for (size_t i = 0; i < matrices.size(); ++i) {
      if (pairs[i].is_none()) continue;
      const auto [first, second] = nb::cast<std::pair<Table, Table>>(pairs[i], false);
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
    RotaryTable& to = *model_.rotary.at(table);
    const Table found = nb::cast<Table>(block, false);
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
    const size_t V = model_.vocab_size;
    const size_t n = every ? tokens[0].shape(0) : conversations.size();
    auto scores = new_array<float>({n, V});
    std::vector<Request> requests;
    for (size_t b = 0; b < conversations.size(); ++b)
      requests.push_back({conversations[b], tokens[b].data(), tokens[b].shape(0),
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
      Conversation& conversation = nb::cast<Conversation&>(conversations[b]);
      Request one{&conversation, &single[b], 1, nullptr, false, nullptr};
      if (PyLong_Check(nb::handle(tokens[b]).ptr())) {
        single[b] = nb::cast<int64_t>(tokens[b]);
      } else {
        several.push_back(nb::cast<Tokens>(tokens[b], false));
        one.tokens = several.back().data();
        one.n = several.back().shape(0);
      }
      if (!choosers[b].is_none()) {
        choices[b].by = &nb::cast<const Chooser&>(choosers[b]);
        choices[b].random = nb::cast<double>(randoms[b]);
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
    choices.assign(n, Choice{});
    for (size_t t = 0; t < n; ++t) {
      choices[t].by = &chooser;
      choices[t].random = nb::cast<double>(randoms[t]);
    }
    request.assign(1, {&conversation, tokens.data(), n, nullptr, true, choices.data()});
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
    expect(n_candidates > 0, "candidates must be 1 or more");
    keep_.push_back(nb::borrow(coarse));
    model_.n_candidates = n_candidates;
    model_.coarse = packed;
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

  void add(const Reader& from) {
    Layer layer;
    layer.n_heads = from.number("n_heads");
    layer.n_kv_heads = from.number("n_kv_heads");
    layer.head_dim = from.number("head_dim");
    layer.mlp_width = from.number("mlp_width");
    layer.window = from.number("window");
    layer.scale = from.real("scale");
    const int D = model_.width;
    layer.attention_norm = from.norm("attention_norm", D);
    layer.attention_post = from.norm("attention_post_norm", D);
    layer.mlp_norm = from.norm("mlp_norm", D);
    layer.mlp_post = from.norm("mlp_post_norm", D);
    layer.query_norm = from.vector("query_norm", layer.head_dim);
    layer.key_norm = from.vector("key_norm", layer.head_dim);
    layer.qkv = from.linear("qkv", D, layer.query_width() + 2 * layer.kv_width());
    layer.out = from.linear("out", layer.query_width(), D);
    layer.inner = from.linear("inner", D, layer.mlp_width * (model_.gated ? 2 : 1));
    layer.down = from.linear("down", layer.mlp_width, D);
    layer.rotary = {rotary(from.number("rotary")), rotary(from.number("rotary_stretched")),
                    from.number("rotary_limit")};
    const int n = 4 * static_cast<int>(model_.layers.size());
    layer.qkv.number = n;
    layer.out.number = n + 1;
    layer.inner.number = n + 2;
    layer.down.number = n + 3;
    model_.pages.add(layer.n_kv_heads, layer.head_dim);
    model_.layers.push_back(std::move(layer));
  }

  const RotaryTable* rotary(int i) const {
    return i < 0 ? nullptr : model_.rotary.at(i).get();
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

  // Every position that a step turns by must be there before anything changes.
  void check_positions(const std::vector<Request>& requests) const {
    for (const Request& one : requests)
      for (const Layer& layer : model_.layers) {
        const int length = one.conversation->memory.length() + static_cast<int>(one.n);
        const RotaryTable* table = layer.rotary.of(length);
        expect(table == nullptr || table->n_positions() >= length,
               "rotary positions are missing");
      }
  }

  void run(const std::vector<Request>& requests) {
    check_positions(requests);
    rows_.clear();  // of one that failed
    size_t n_scored = 0;
    const auto flush = [&] {
      if (!rows_.empty()) kernels_.step(model_, *work_, pool_, rows_);
      rows_.clear();
      n_scored = 0;
    };
    for (const Request& one : requests) {
      Memory& memory = one.conversation->memory;
      const Adapter* adapter = one.conversation->adapter.get();
      const int start = memory.length(), n = static_cast<int>(one.n), length = start + n;
      memory.reserve(n);
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

  std::vector<nb::object> keep_;
  const Kernels& kernels_;
  Pool pool_;
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
  nb::class_<Matrix>(m, "Matrix")
      .def(nb::init<int, int, int, int, Bytes, Halves, nb::object, int>(), nb::arg("bits"),
           nb::arg("group"), nb::arg("n_rows"), nb::arg("n_inputs"), nb::arg("codes"),
           nb::arg("scales"), nb::arg("zeros").none(), nb::arg("threads") = 1)
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
      .def("rewind", [](Conversation& self, int length) { self.memory.set_length(length); })
      .def("state", &Conversation::state)
      .def("load", &Conversation::load)
      // A fork shares the pages, and needs the decoder as long as the first does.
      .def("fork", [](const Conversation& self) { return Conversation(self); },
           nb::keep_alive<0, 1>());
  nb::class_<Decoder>(m, "Decoder")
      .def(nb::init<nb::dict, nb::list, int, const std::string&>())
      .def("conversation", &Decoder::conversation, nb::arg("adapter").none(),
           nb::keep_alive<0, 1>())
      .def("adapter", &Decoder::adapter)
      .def("extend", &Decoder::extend)
      .def("step", &Decoder::step)
      .def("choose", &Decoder::choose)
      .def("use_two_stages", &Decoder::use_two_stages)
      .def_prop_ro("picked", &Decoder::picked)
      .def("choose_each", &Decoder::choose_each)
      .def_prop_ro("isa", &Decoder::isa);
}
