// A decoder as the native engine runs it; what each part means: onhand/core/decoder.py.
#pragma once

#include <memory>
#include <vector>

#include "adapter.h"
#include "bf16.h"
#include "format.h"
#include "memory.h"
#include "pool.h"
#include "sampling.h"

namespace onhand {

struct Norm {
  const float* weight = nullptr;
  const float* bias = nullptr;  // of a layer norm; null in a root mean square norm
};

// A matrix, whole or as two factors of which the first is applied first, and its bias.
struct Linear {
  std::vector<Packed> factors;
  const float* bias = nullptr;
  int number = 0;  // among the matrices that adapters add to
  int n_inputs() const { return factors.front().n_inputs; }
  int n_outputs() const { return factors.back().n_rows; }
};

constexpr int kRotaryBlock = 1024;  // positions

// How pairs of a head turn: (kRotaryBlock, 2, half) cosines and sines, block by block as
// conversations grow.
struct RotaryTable {
  int half = 0;  // pairs of a head that turn
  std::vector<const float*> blocks;
  int n_positions() const { return static_cast<int>(blocks.size()) * kRotaryBlock; }
};

// The tables of a layer; conversations of more than `limit` tokens have one of their own.
struct Rotary {
  const RotaryTable* plain = nullptr;  // null where positions do not turn
  const RotaryTable* stretched = nullptr;
  int limit = 0;
  const RotaryTable* of(int length) const {
    return stretched != nullptr && length > limit ? stretched : plain;
  }
};

enum class Activation { silu, gelu, gelu_tanh };

struct Layer {
  Norm attention_norm, attention_post, mlp_norm, mlp_post;
  const float* query_norm = nullptr;
  const float* key_norm = nullptr;
  Linear qkv, out, inner, down;
  Rotary rotary;
  int n_heads = 0, n_kv_heads = 0, head_dim = 0, mlp_width = 0, window = 0;
  float scale = 1;
  int query_width() const { return n_heads * head_dim; }
  // Whether parts of the widest product can be used before all of it is there.
  bool widens_in_parts(bool gated) const {
    return inner.factors.size() == 1 && (mlp_width % kRows == 0 || !gated);
  }
  int kv_width() const { return n_kv_heads * head_dim; }
};

struct Model {
  std::vector<Layer> layers;
  Packed embed;
  const float* positions = nullptr;  // (context, width), where positions are learned
  Linear head;
  Packed coarse;         // copy of the head's last factor, for its first stage; none without data
  int n_candidates = 0;  // tiles of the head that its second stage scores
  Norm final_norm;
  Activation activation = Activation::silu;
  bool gated = true;
  bool bf16_prefill = false;  // products of many rows in bf16
  int width = 0, vocab_size = 0, context = 0;
  float epsilon = 0, embed_scale = 1;
  float attention_cap = 0, logit_cap = 0;  // 0: none
  PageShape pages;
  std::vector<std::unique_ptr<RotaryTable>> rotary;
};

inline size_t padded_vocab(const Model& model) {
  return size_t(model.head.factors.back().n_tiles) * kRows;
}

// One token of a step.
struct Row {
  Memory* memory;
  int position;
  int token;
  float* logits;  // where its scores go; null if nobody asks
  Choice* choice;  // the token that they choose; null if nobody asks
  const Adapter* adapter = nullptr;
  int length = 0;  // of the conversation, all tokens that are fed with this one included
};

constexpr int kMostRows = 256;    // of a step; longer prompts are cut
static_assert(kMostRows <= kBf16MostRows && kMostRows % 32 == 0);
constexpr int kMostScores = 32;   // rows of a step that are scored
constexpr int kHeadTiles = 32;    // of the head, scored at once

constexpr int kTileRows = 8;   // of a conversation that attend together
constexpr int kBf16TileRows = 32;  // likewise, in bf16
constexpr int kWideColumns = 128;  // of the widest product, computed and used at once
constexpr int kAloneRows = 4;  // of a step; so few each thread prepares for itself

// Rows of inputs rounded for a product: to int8, or to bf16 where that is asked for.
struct Quantized {
  std::vector<Bf16Line> bf16;
  std::vector<int8_t> codes;
  std::vector<float> scales;
  std::vector<int32_t> starts;
  std::vector<float> minus_sums;
  void resize(size_t rows, size_t width, size_t groups);
  // The rows as inputs of a matrix.
  Inputs inputs(const Packed& w) {
    return {w.n_groups,    w.format.group, codes.data(),
            scales.data(), starts.data(),  minus_sums.data()};
  }
  Bf16Inputs bf16_inputs(const Packed& w) {
    return {bf16[0].at, w.n_groups * w.format.group / kBf16Step};
  }
};

// What a step works in, made once.
class Workspace {
 public:
  Workspace(const Model& model, int n_threads);
  // Before a step: which rows are scored, and room for what they ask for.
  void expect(const Model& model, const std::vector<Row>& rows);

  // Make room for an adapter, and for prompts in bf16.
  void fit(const Adapter& adapter);
  void fit_bf16(const Model& model);
  // The residual stream and what is made of it: the first serves all threads, or, of a few rows,
  // each has its own.
  struct Own {
    std::vector<float> stream, normed;
    Quantized quantized;
    Quantized coarse;  // the same for the head's first stage
  };
  std::vector<Own> own;
  std::vector<float> qkv, attended, activated, product;
  std::vector<float> inner;  // of layers whose widest product is made whole before it is used
  std::vector<std::vector<float>> wide;  // by thread: (rows, 2, kWideColumns), and one row more
  std::vector<float> between;  // what the first of two factors gives
  Quantized activated_codes;
  // Of a key head's queries of some rows.
  struct Attention {
    std::vector<float> queries, scores, sums;  // (queries, dim), (queries, kPage), (queries, wide)
    std::vector<float> lanes, most;            // (queries, kLanes), (queries)
    std::vector<Bf16Line> bf16;  // queries, shares, and a part of a page
    int most_queries = 0;    // of those
  };
  std::vector<Attention> attention;         // by thread
  std::vector<std::vector<float>> low;      // by thread: what an adapter's first factor gives
  int most_rank = 0;                        // of the adapters that it has room for
  struct alignas(64) Bytes { uint8_t at[64]; };
  std::vector<std::vector<Bytes>> scratch;  // by thread, kScratch bytes

  struct HeadSpace {
    std::vector<float> scores;  // (kMostScores, kHeadTiles * kRows)
    std::vector<float> low;     // (kMostScores, rank) of adapters of the head
    std::vector<Best> best;     // by scored row
    ChoiceSpace space;
  };
  std::vector<int> asked;        // rows that are scored
  std::vector<float> drawn;      // (asked, vocabulary) scores that a token is drawn by
  bool two_stage = false;        // nobody asks for all scores, so a coarse head goes before
  std::vector<float> tops;       // (asked, tiles) highest of each tile in the first stage
  std::vector<std::vector<int>> picked;  // by asked row: tiles of the second
  std::vector<int32_t> drawn_ids;        // what tokens its scores are of
  std::vector<HeadSpace> heads;  // by thread
};

}  // namespace onhand
