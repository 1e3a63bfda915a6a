#include "encoder.h"

#include <algorithm>
#include <cstring>

#include "failure.h"
#include "process.h"

namespace tprune {
namespace {

constexpr std::size_t kMostViews = 1 << 18;

// The place of an input in the manifest's order; nothing when there is none of that name.
std::optional<std::size_t> find_input(const GraphSpec& graph, const char* name) {
  for (std::size_t i = 0; i < graph.inputs.size(); ++i) {
    const PortSpec& port = graph.inputs[i];
    if (port.name != name) continue;
    if (port.dtype == DType::int64 && port.dims(1, 7, -1) == Dims{1, 7}) return i;
    throw BadInput("manifest.json: '" + port.name + "' is not int64 [batch, source]");
  }
  return std::nullopt;
}

std::int64_t wide(std::size_t size) {
  return static_cast<std::int64_t>(size);
}

}  // namespace

Encoder::Encoder(Engine& engine, Call& call, const GraphSpec& graph, const std::vector<Ids>& sentences,
                 std::size_t copies)
    : engine_(engine), call_(call), copies_(copies) {
  const std::optional<std::size_t> ids = find_input(graph, "input_ids");
  const std::optional<std::size_t> mask = find_input(graph, "attention_mask");
  if (!ids || graph.inputs.size() != (mask ? 2U : 1U)) {
    throw BadInput("manifest.json: the encoder's inputs are not input_ids and, if it pads, attention_mask");
  }
  std::size_t longest = 0;
  for (const Ids& sentence : sentences) longest = std::max(longest, sentence.size());
  ids_ = memory_.tensor(DType::int64, {1, wide(longest)});
  ids_place_ = place_of(call.inputs(), "input_ids", *ids);
  if (mask) {
    mask_ = memory_.tensor(DType::int64, ids_.dims);
    mask_place_ = place_of(call.inputs(), "attention_mask", *mask);
    std::fill_n(static_cast<std::int64_t*>(mask_.data), longest, 1);
  }
  for (std::size_t i = 0; i < graph.outputs.size(); ++i) {
    const PortSpec& port = graph.outputs[i];
    if (port.dtype != DType::float32) throw BadInput("manifest.json: '" + port.name + "' is not float32");
    const bool batched = !port.shape.empty() && port.shape[0].name == "batch";
    if (copies > 1 && !batched) throw BadInput("manifest.json: '" + port.name + "' has no batch for several beams");
    Output output{place_of(call.outputs(), port.name, i), &port, {}, {}};
    output.single = memory_.tensor(port.dtype, port.dims(1, wide(longest), -1));
    if (copies > 1) output.copies = memory_.tensor(port.dtype, port.dims(wide(copies), wide(longest), -1));
    outputs_.push_back(std::move(output));
  }
  for (const Ids& sentence : sentences) {
    if (prepared_.count(sentence.size()) > 0) continue;
    if (prepared_.size() * outputs_.size() > kMostViews)
      throw BadInput("too many sentence lengths for so many outputs");
    prepared_.emplace(sentence.size(), prepare(sentence.size()));
  }
}

Encoder::Prepared Encoder::prepare(std::size_t length) {
  Prepared prepared;
  prepared.ids = engine_.view({ids_.data, DType::int64, {1, wide(length)}});
  if (mask_place_) prepared.mask = engine_.view({mask_.data, DType::int64, {1, wide(length)}});
  for (const Output& output : outputs_) {
    const Dims dims = output.spec->dims(1, wide(length), -1);
    prepared.dims.push_back(dims);
    prepared.outputs.push_back(engine_.view({output.single.data, DType::float32, dims}));
    if (copies_ == 1) continue;
    const Dims all = output.spec->dims(wide(copies_), wide(length), -1);
    prepared.for_decoder.push_back(engine_.view({output.copies.data, DType::float32, all}));
  }
  return prepared;
}

std::int64_t Encoder::run(const Ids& source) {
  const Prepared& prepared = prepared_.at(source.size());
  std::memcpy(ids_.data, source.data(), source.size() * sizeof(std::int64_t));
  call_.set_input(ids_place_, *prepared.ids);
  if (mask_place_) call_.set_input(*mask_place_, *prepared.mask);
  if (engine_.binds_outputs()) {
    for (std::size_t i = 0; i < outputs_.size(); ++i) call_.set_output(outputs_[i].place, *prepared.outputs[i]);
  }
  const std::int64_t begin = now_ns();
  call_.run();
  const std::int64_t run_ns = now_ns() - begin;
  collect(prepared);
  return run_ns;
}

// Brings the outputs to where the decoder's views look.
void Encoder::collect(const Prepared& prepared) {
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    const Output& output = outputs_[i];
    const std::size_t bytes = tensor_bytes(DType::float32, prepared.dims[i], Memory::kMost);
    if (!engine_.binds_outputs()) {
      const Buffer own = call_.output(output.place);
      if (own.dtype != DType::float32 || !(own.dims == prepared.dims[i])) {
        throw Failed("the encoder gave " + own.dims.text() + " for '" + output.spec->name + "' instead of " +
                     prepared.dims[i].text());
      }
      std::memcpy(output.single.data, own.data, bytes);
    }
    for (std::size_t copy = 0; copies_ > 1 && copy < copies_; ++copy) {
      std::memcpy(static_cast<char*>(output.copies.data) + copy * bytes, output.single.data, bytes);
    }
  }
}

const View& Encoder::output(const std::string& name, std::size_t length) const {
  const Prepared& prepared = prepared_.at(length);
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    if (outputs_[i].spec->name == name) return copies_ > 1 ? *prepared.for_decoder[i] : *prepared.outputs[i];
  }
  throw Failed("the encoder has no output '" + name + "'");
}

bool Encoder::has(const std::string& name) const {
  return std::any_of(outputs_.begin(), outputs_.end(), [&](const Output& o) { return o.spec->name == name; });
}

}  // namespace tprune
