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
bool match(const PortSpec& past, const PortSpec& present, bool grows) {
  if (past.dtype != DType::float32 || present.dtype != DType::float32) return false;
  if (past.shape.size() != 4 || present.shape.size() != 4) return false;
  const std::size_t time = grows ? 2 : 1;
  for (std::size_t axis : {3 - time, std::size_t{3}}) {  // heads, width
    if (!fixed(past.shape[axis]) || past.shape[axis].fixed != present.shape[axis].fixed) return false;
  }
  if (past.shape[time].name != "past") return false;
  if (!grows) return one(past.shape[0]) && one(present.shape[0]) && present.shape[time].fixed == 1;
  return past.shape[0].name == "batch" && present.shape[0].name == "batch" && present.shape[time].name == "present";
}

}  // namespace

bool grows(const Artefact& artefact) {
  const auto present = [](const Size& size) { return size.name == "present"; };
  const auto has = [&](const PortSpec& port) { return std::any_of(port.shape.begin(), port.shape.end(), present); };
  const std::vector<PortSpec>& outputs = artefact.step.outputs;
  // Without any cache a batch of beams needs the logits to have one.
  return std::any_of(outputs.begin(), outputs.end(), has) || (outputs.size() == 1 && !fixed(outputs[0].shape[0]));
}

StepPlan plan_step(const StepParts& parts, bool grows) {
  const GraphSpec& graph = parts.artefact.step;
  StepPlan plan;
  plan.grows = grows;
  plan.logits = place_of(parts.call.outputs(), graph.outputs[0].name, 0);
  if (grows ? graph.outputs[0].shape[0].name != "batch" : !one(graph.outputs[0].shape[0])) {
    fail(graph.outputs[0], "has a first size that does not go with its caches");
  }
  int numbers = 0;
  std::size_t output = 1;
  for (std::size_t i = 0; i < graph.inputs.size(); ++i) {
    const PortSpec& port = graph.inputs[i];
    const std::size_t place = place_of(parts.call.inputs(), port.name, i);
    if (port.name == "token" || port.name == "position") {
      need_number(port);
      if (port.name == "token" && grows && port.shape[0].name != "batch") fail(port, "has no batch");
      (port.name == "token" ? plan.token : plan.position) = place;
      ++numbers;
    } else if (parts.encoder.has(port.name)) {
      plan.crosses.push_back({place, port.name});
    } else {
      if (output == graph.outputs.size()) fail(port, "has no output that continues it");
      const PortSpec& present = graph.outputs[output];
      if (!match(port, present, grows)) fail(port, "does not go with '" + present.name + "'");
      plan.caches.push_back({&port, &present, place, place_of(parts.call.outputs(), present.name, output),
                             static_cast<std::size_t>(port.shape[grows ? 1 : 2].fixed),
                             static_cast<std::size_t>(port.shape[3].fixed)});
      ++output;
    }
  }
  if (numbers != 2) throw BadInput("manifest.json: decoder_step lacks the input 'token' or 'position'");
  if (output != graph.outputs.size()) fail(graph.outputs[output], "has no input that it continues");
  return plan;
}

std::unique_ptr<Step> make_step(const StepParts& parts, bool grows) {
  StepPlan plan = plan_step(parts, grows);
  return grows ? make_growing_step(parts, std::move(plan)) : make_row_step(parts, std::move(plan));
}

}  // namespace tprune
