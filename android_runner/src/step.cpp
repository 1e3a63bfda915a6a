#include "step.h"

#include <algorithm>

#include "failure.h"

namespace tprune {
namespace {

[[noreturn]] void fail(const PortSpec& port, const std::string& what) {
  throw BadInput("manifest.json: '" + port.name + "' of decoder_step " + what);
}

void need_number(const PortSpec& port) {
  if (port.dtype != DType::int64 || !(port.dims(1, -1, -1) == Dims{1})) fail(port, "is not one int64");
}

bool fixed(const Size& size) {
  return size.name.empty();
}

bool one(const Size& size) {
  return size.name == "batch" || size.fixed == 1;
}

// Whether a past and a present belong together as two sides of one cache.
bool match(const PortSpec& past, const PortSpec& present, bool batched) {
  if (past.dtype != DType::float32 || present.dtype != DType::float32) return false;
  if (past.shape.size() != 4 || present.shape.size() != 4) return false;
  const std::size_t time = batched ? 2 : 1;
  for (std::size_t axis : {3 - time, std::size_t{3}}) {  // heads, width
    if (!fixed(past.shape[axis]) || past.shape[axis].fixed != present.shape[axis].fixed) return false;
  }
  if (!batched) {
    return one(past.shape[0]) && one(present.shape[0]) && past.shape[time].name == "past" &&
           present.shape[time].fixed == 1;
  }
  const auto named = [](const PortSpec& port, std::size_t axis, const char* name) {
    return port.shape[axis].name == name;
  };
  return named(past, 0, "batch") && named(present, 0, "batch") && named(past, time, "cache") &&
         named(present, time, "cache");
}

}  // namespace

bool batched(const Artefact& artefact) {
  return !fixed(artefact.step.outputs[0].shape[0]);  // of the logits
}

StepPlan plan_step(const StepParts& parts, bool batched) {
  const GraphSpec& graph = parts.artefact.step;
  StepPlan plan;
  plan.logits = place_of(parts.call.outputs(), graph.outputs[0].name, 0);
  if (batched ? graph.outputs[0].shape[0].name != "batch" : !one(graph.outputs[0].shape[0])) {
    fail(graph.outputs[0], "has a first size that does not go with its caches");
  }
  int numbers = 0;
  std::size_t output = 1;
  for (std::size_t i = 0; i < graph.inputs.size(); ++i) {
    const PortSpec& port = graph.inputs[i];
    const std::size_t place = place_of(parts.call.inputs(), port.name, i);
    if (port.name == "token" || port.name == "position") {
      need_number(port);
      if (port.name == "token" && batched && port.shape[0].name != "batch") fail(port, "has no batch");
      (port.name == "token" ? plan.token : plan.position) = place;
      ++numbers;
    } else if (parts.encoder.has(port.name)) {
      plan.crosses.push_back({place, port.name});
    } else {
      if (output == graph.outputs.size()) fail(port, "has no output that continues it");
      const PortSpec& present = graph.outputs[output];
      if (!match(port, present, batched)) fail(port, "does not go with '" + present.name + "'");
      plan.caches.push_back({&port, &present, place, place_of(parts.call.outputs(), present.name, output),
                             static_cast<std::size_t>(port.shape[batched ? 1 : 2].fixed),
                             static_cast<std::size_t>(port.shape[3].fixed)});
      ++output;
    }
  }
  if (numbers != 2) throw BadInput("manifest.json: decoder_step lacks the input 'token' or 'position'");
  if (output != graph.outputs.size()) fail(graph.outputs[output], "has no input that it continues");
  return plan;
}

std::unique_ptr<Step> make_step(const StepParts& parts, bool batched) {
  StepPlan plan = plan_step(parts, batched);
  return batched ? make_in_place_step(parts, std::move(plan)) : make_row_step(parts, std::move(plan));
}

}  // namespace tprune
