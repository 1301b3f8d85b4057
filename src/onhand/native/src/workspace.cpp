#include <algorithm>

#include "attention_bf16.h"
#include "model.h"
#include "products.h"

namespace onhand {

void Quantized::resize(size_t rows, size_t width, size_t groups) {
  codes.resize(rows * width);
  scales.resize(rows * groups);
  starts.resize(rows * groups);
  minus_sums.resize(rows * groups);
}

namespace {

// What a row of inputs takes that is rounded for any of some products.
struct Widest {
  size_t codes = 0, groups = 0;
  void look(const Packed& w) {
    codes = std::max(codes, static_cast<size_t>(w.n_groups) * w.format.group);
    groups = std::max(groups, static_cast<size_t>(w.n_groups));
  }
};

// Room for queries of a head of `dim` numbers.
void fit(Workspace::Attention& own, size_t queries, size_t dim) {
  own.queries.resize(queries * dim);
  own.scores.resize(queries * kPage);
  own.sums.resize(queries * dim);
  own.lanes.resize(queries * kLanes);
  own.most.resize(queries);
}

}  // namespace

Workspace::Workspace(const Model& model, int n_threads) {
  size_t qkv = 0, attended = 0, inner = 0, product = 0, between = 0, unused = 0;
  size_t queries = 0, head = 0;
  Widest plain, activated;
  const auto look = [&](const Linear& linear, size_t& out, Widest& first) {
    for (size_t i = 0; i < linear.factors.size(); ++i) {
      const Packed& w = linear.factors[i];
      const size_t stride = static_cast<size_t>(w.n_tiles) * kRows;
      (i == 0 ? first : plain).look(w);
      if (i + 1 < linear.factors.size()) between = std::max(between, stride);
      else out = std::max(out, stride);
    }
  };
  for (const Layer& layer : model.layers) {
    look(layer.qkv, qkv, plain);
    look(layer.out, product, plain);
    look(layer.inner, layer.widens_in_parts(model.gated) ? unused : inner, plain);
    look(layer.down, product, activated);
    attended = std::max(attended, static_cast<size_t>(layer.query_width()));
    queries = std::max(queries, static_cast<size_t>(layer.n_heads / layer.n_kv_heads) * kTileRows);
    head = std::max(head, static_cast<size_t>(layer.head_dim + kLanes));
  }
  look(model.head, unused, plain);  // its outputs are never kept all
  const size_t rows = kMostRows;
  const size_t read = rows + kRows;  // tiles read whole sixteens of rows
  own.resize(n_threads);
  for (size_t i = 0; i < own.size(); ++i) {
    const size_t n = i == 0 ? rows : kAloneRows;
    own[i].stream.resize(n * model.width);
    own[i].normed.resize(n * model.width);
    own[i].quantized.resize(i == 0 ? read : n, plain.codes, plain.groups);
  }
  this->qkv.resize(rows * qkv);
  this->attended.resize(rows * attended);
  this->inner.resize(rows * inner);
  wide.resize(n_threads);
  for (auto& one : wide) one.resize((rows * 2 + 1) * kWideColumns);
  this->product.resize(rows * product);
  this->between.resize(rows * between);
  activated_codes.resize(read, activated.codes, activated.groups);
  attention.resize(n_threads);
  for (Attention& one : attention) onhand::fit(one, queries, head);
  low.resize(n_threads);
  scratch.resize(n_threads);
  for (auto& one : scratch) one.resize((kScratch + 63) / 64);
  asked.reserve(kMostScores);
  heads.resize(n_threads);
  for (HeadSpace& one : heads) {
    one.scores.resize(size_t{kMostScores} * kHeadTiles * kRows);
    one.best.resize(kMostScores);
  }
}

void Workspace::expect(const Model& model, const std::vector<Row>& rows) {
  asked.clear();
  bool drawing = false, scoring = false, adapting = false;
  for (size_t r = 0; r < rows.size(); ++r) {
    adapting |= rows[r].adapter != nullptr;
    if (rows[r].logits == nullptr && rows[r].choice == nullptr) continue;
    asked.push_back(static_cast<int>(r));
    scoring |= rows[r].logits != nullptr;
    drawing |= rows[r].choice != nullptr && !rows[r].choice->by->is_greedy();
  }
  if (adapting && activated.empty()) {
    int widest = 0;
    for (const Layer& layer : model.layers) widest = std::max(widest, layer.mlp_width);
    activated.resize(size_t{kMostRows} * widest);
  }
  const auto fit = [&](auto& space, size_t columns) {
    if (space.size() < asked.size() * columns) space.resize(asked.size() * columns);
  };
  two_stage = model.coarse.data != nullptr && !scoring;
  if (drawing) fit(drawn, padded_vocab(model));
  if (!two_stage) return;
  if (drawing) fit(drawn_ids, padded_vocab(model));
  fit(tops, model.coarse.n_tiles);
  if (picked.size() < asked.size()) picked.resize(asked.size());
  for (size_t k = 0; k < asked.size(); ++k) picked[k].reserve(model.coarse.n_tiles);
  for (size_t i = 0; i < own.size(); ++i)
    if (own[i].coarse.codes.empty())
      own[i].coarse.resize(i == 0 ? kMostRows + kRows : kAloneRows,
                           size_t(model.coarse.n_groups) * model.coarse.format.group,
                           model.coarse.n_groups);
}

void Workspace::fit_bf16(const Model& model) {
  int queries = 0, dim = 0;
  for (const Layer& layer : model.layers) {
    queries = std::max(queries, layer.n_heads / layer.n_kv_heads * kBf16TileRows);
    dim = std::max(dim, layer.head_dim + kLanes);
  }
  for (Attention& one : attention) {
    one.most_queries = queries;
    one.bf16.resize((bf16_page_space(queries, dim) + kBf16Step - 1) / kBf16Step);
    onhand::fit(one, queries, dim);
  }
  for (Quantized* one : {&own[0].quantized, &activated_codes})
    one->bf16.resize((one->codes.size() + kBf16Step - 1) / kBf16Step);
  for (auto& one : scratch) one.resize((std::max(kScratch, kBf16Scratch) + 63) / 64);
}

void Workspace::fit(const Adapter& adapter) {
  most_rank = std::max(most_rank, adapter.most_rank());
  for (auto& one : low) one.resize(most_rank);
  for (HeadSpace& one : heads) one.low.resize(size_t{kMostScores} * most_rank);
}

}  // namespace onhand
