#include <algorithm>
#include <cmath>

#include "artefact.h"
#include "failure.h"
#include "ids.h"
#include "memory.h"
#include "npy.h"
#include "task.h"

namespace tprune {
namespace {

// Reads images, uint8 [count, channels, height, width], of the size that the artefact takes.
Buffer read_images(const Options& options, const Classifier& artefact, Memory& memory) {
  const Buffer images = read_npy(options.images, memory);
  bool same = images.dtype == DType::uint8 && images.dims.rank() == artefact.image.rank() && images.dims[0] > 0;
  for (std::size_t axis = 1; same && axis < artefact.image.rank(); ++axis) {
    same = images.dims[axis] == artefact.image[axis];
  }
  if (same) return images;
  Dims wanted = artefact.image;
  wanted[0] = -1;
  throw BadInput(options.images + " is " + name_of(images.dtype) + " " + images.dims.text() +
                 ", the artefact takes uint8 " + wanted.text());
}

// The class with the largest logit, the first of equal ones.
std::int64_t best(const float* logits, std::size_t classes) {
  if (!std::all_of(logits, logits + classes, [](float logit) { return std::isfinite(logit); })) {
    throw Failed("a logit is no finite number");
  }
  return std::max_element(logits, logits + classes) - logits;
}

}  // namespace

Report run_classify(const Options& options) {
  Report report;
  report.start = memory_use();
  const Classifier artefact = read_classifier(options.artefact, identity().engine);
  Memory memory;
  const Buffer images = read_images(options, artefact, memory);
  if (!options.affinity.empty()) set_affinity(options.affinity);

  const std::int64_t begin = now_ns();
  const std::unique_ptr<Engine> engine = load_engine(options);
  const std::unique_ptr<Call> call = engine->open(artefact.graph.file, artefact.graph.name);
  check_ports(artefact.graph, *call);
  const Buffer image = memory.tensor(DType::float32, artefact.image);
  const Buffer logits = memory.tensor(DType::float32, artefact.logits);
  const std::unique_ptr<View> input = engine->view(image);
  const std::unique_ptr<View> output = engine->view(logits);
  call->set_input(0, *input);
  if (engine->binds_outputs()) call->set_output(0, *output);
  report.load_ns = now_ns() - begin;
  report.loaded = memory_use();

  const auto count = static_cast<std::size_t>(images.dims[0]);
  const std::size_t pixels = tensor_bytes(images.dtype, images.dims, Memory::kMost) / count;
  std::vector<Ids> classes(count, Ids{0});
  std::int64_t found = 0;
  const auto once = [&](std::size_t i) {
    const auto* from = static_cast<const std::uint8_t*>(images.data) + i % count * pixels;
    const auto scaled = [](std::uint8_t value) { return static_cast<float>(value) / 255; };
    std::transform(from, from + pixels, static_cast<float*>(image.data), scaled);
    Sample sample;
    const std::int64_t start = now_ns();
    call->run();
    sample.run_ns = now_ns() - start;
    found = best(static_cast<const float*>(call->output(0).data), static_cast<std::size_t>(artefact.logits[1]));
    sample.total_ns = now_ns() - start;
    return sample;
  };
  const auto keep = [&](std::size_t i) {
    if (i < count) {
      classes[i][0] = found;
    } else if (classes[i % count][0] != found) {
      throw Failed("pass " + std::to_string(i / count + 1) + " image " + std::to_string(i % count + 1) +
                   " gave another class than pass 1");
    }
  };
  const Amount amount{count * static_cast<std::size_t>(options.passes), options.min_ms * 1'000'000, count};
  report.measured = measure(options, amount, once, keep);
  report.artefact = artefact.id;
  write_ids(options.out_dir + "/output.ids", classes);
  finish_report(report, *engine);
  return report;
}

}  // namespace tprune
