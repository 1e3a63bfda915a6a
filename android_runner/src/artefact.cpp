#include "artefact.h"

#include <algorithm>
#include <limits>

#include "failure.h"
#include "file.h"
#include "json.h"
#include "sha256.h"

namespace tprune {
namespace {

constexpr std::size_t kLargestManifest = std::size_t{4} << 20;
constexpr std::int64_t kLargestFile = std::int64_t{4} << 30;
constexpr std::int64_t kLargestSize = 1 << 24;
constexpr std::int64_t kLargestId = std::numeric_limits<std::int32_t>::max();
constexpr std::size_t kMostFiles = 16;
constexpr std::size_t kMostPorts = 1024;

std::vector<Size> read_shape(const Json& port) {
  std::vector<Size> shape;
  for (const Json& size : port.array("shape").items()) {
    if (shape.size() == Dims::kMost) throw BadInput("'shape' has too many sizes");
    const bool named = size.kind() == Json::Kind::text && !size.text().empty();
    const bool fixed = size.kind() == Json::Kind::integer && size.integer() >= 1 && size.integer() <= kLargestSize;
    if (!named && !fixed) throw BadInput("'shape' of '" + port.text("name") + "' holds neither sizes nor names");
    shape.push_back({named ? 0 : size.integer(), size.text()});
  }
  return shape;
}

std::vector<PortSpec> read_ports(const Json& graph, const char* side) {
  std::vector<PortSpec> ports;
  for (const Json& port : graph.array(side).items()) {
    if (ports.size() == kMostPorts) throw BadInput(std::string("'") + side + "' has too many tensors");
    const std::optional<DType> dtype = dtype_named(port.text("dtype"));
    if (dtype != DType::float32 && dtype != DType::int64) throw BadInput("'dtype' is neither float32 nor int64");
    const std::string& name = port.text("name");
    const auto same = [&](const PortSpec& other) { return other.name == name; };
    if (name.empty() || std::any_of(ports.begin(), ports.end(), same)) {
      throw BadInput(std::string("'") + side + "' has two tensors named '" + name + "'");
    }
    ports.push_back({name, *dtype, read_shape(port)});
  }
  return ports;
}

GraphSpec read_graph(const Json& manifest, const std::string& name, const std::string& file) {
  const Json& graph = manifest.object("tensors").object(name);
  return {name, file, read_ports(graph, "inputs"), read_ports(graph, "outputs")};
}

// Checks every file that the manifest names, and that the artefact's id belongs to them.
void check_files(const Json& manifest, const std::string& folder) {
  const Json& files = manifest.object("files");
  if (files.keys().size() > kMostFiles) throw BadInput("'files' names too many files");
  std::vector<std::string> lines;
  for (std::size_t i = 0; i < files.keys().size(); ++i) {
    const std::string& name = files.keys()[i];
    if (name.empty() || name == "." || name == ".." || name.find_first_of(std::string("/\0", 2)) != std::string::npos) {
      throw BadInput("'files' names '" + name + "', which is not a plain file name");
    }
    const std::string path = folder + "/" + name;
    const Json& entry = files.items()[i];
    const std::int64_t bytes = entry.integer("bytes", 0, kLargestFile);
    if (const std::int64_t found = file_bytes(path); found != bytes) {
      throw BadInput(name + " has " + std::to_string(found) + " bytes instead of " + std::to_string(bytes) +
                     "; export the artefact again");
    }
    const std::string& digest = entry.text("sha256");
    if (const std::string found = file_sha256(path); found != digest) {
      throw BadInput(name + " has sha256 " + found.substr(0, 16) + "... instead of " + digest.substr(0, 16) +
                     "...; export the artefact again");
    }
    lines.push_back(name + " " + digest + "\n");
  }
  std::sort(lines.begin(), lines.end());
  Sha256 all;
  for (const std::string& line : lines) all.update(line);
  if (all.hex().substr(0, 16) != manifest.text("id")) throw BadInput("'id' does not belong to its files");
}

Ids read_output_ids(const Json& manifest) {
  const Json* list = manifest.find("output_ids");
  Ids ids;
  if (list == nullptr || list->kind() == Json::Kind::null) return ids;
  for (const Json& id : manifest.array("output_ids").items()) {
    if (id.kind() != Json::Kind::integer || id.integer() < 0 || id.integer() > kLargestId) {
      throw BadInput("'output_ids' holds something else than token ids");
    }
    ids.push_back(id.integer());
  }
  return ids;
}

// The row of the output matrix that stands for a special token; nothing when none does.
std::optional<std::int64_t> find_row(const Json& special, const char* role, const Artefact& artefact) {
  const std::int64_t token = special.integer(role, 0, kLargestId);
  std::int64_t row = token;
  if (!artefact.output_ids.empty()) {
    row = std::find(artefact.output_ids.begin(), artefact.output_ids.end(), token) - artefact.output_ids.begin();
  }
  return row < artefact.vocabulary ? std::optional(row) : std::nullopt;
}

std::int64_t read_row(const Json& special, const char* role, const Artefact& artefact) {
  if (const std::optional<std::int64_t> row = find_row(special, role, artefact)) return *row;
  throw BadInput(std::string("special token '") + role + "' " + std::to_string(special.integer(role, 0, kLargestId)) +
                 " is not in the output vocabulary");
}

Scoring read_scoring(const Json& manifest) {
  Scoring scoring;
  if (manifest.find("scoring") == nullptr) return scoring;  // of an artefact that is older than this
  const Json& given = manifest.object("scoring");
  scoring.length_penalty = given.number("length_penalty");
  const Json* early = given.find("early_stopping");
  if (early != nullptr && early->kind() == Json::Kind::boolean) {
    scoring.stop = early->integer() != 0 ? Scoring::Stop::full : Scoring::Stop::guess;
  } else if (early != nullptr && early->text() == "never") {
    scoring.stop = Scoring::Stop::patient;
  } else {
    throw BadInput("'early_stopping' is neither true nor false nor 'never'");
  }
  return scoring;
}

// A program's path by the runtime's convention; BadInput when the manifest does not vouch for the file.
std::string program(const Json& manifest, const std::string& folder, const std::string& graph) {
  const std::string name = manifest.text("runtime") == "executorch" ? "model.pte" : graph + ".onnx";
  if (manifest.object("files").find(name) == nullptr) throw BadInput("'files' lacks " + name);
  return folder + "/" + name;
}

// Throws unless this program can run what the manifest describes, and that is for `task` ("translation", "images").
void check_head(const Json& manifest, const std::string& runtime, const std::string& task) {
  if (manifest.integer("schema", 0, kLargestId) != 1) throw BadInput("'schema' is not 1; use a newer runner");
  if (manifest.text("kind") != "artefact") throw BadInput("'kind' is not 'artefact'");
  if (manifest.text("runtime") != runtime) {
    throw BadInput("the artefact is for " + manifest.text("runtime") + "; this program runs " + runtime);
  }
  const std::string found = manifest.find("task") == nullptr ? "translation" : manifest.text("task");
  if (found != task) throw BadInput("the artefact is one of " + found + ", not of " + task);
}

// The one port of a side of an image network's graph, with the name and the rank that it must have.
Dims only_port(const std::vector<PortSpec>& ports, const std::string& name, std::size_t rank) {
  const bool known = ports.size() == 1 && ports[0].name == name && ports[0].dtype == DType::float32;
  const Dims dims = known ? ports[0].dims(-1, -1, -1) : Dims();
  if (!known || dims.rank() != rank || dims[0] != 1) {
    throw BadInput("'tensors' has no float32 '" + name + "' of " + std::to_string(rank) + " sizes, the first 1");
  }
  return dims;
}

Classifier parse_classifier(const Json& manifest, const std::string& folder, const std::string& runtime) {
  check_head(manifest, runtime, "images");
  Classifier artefact;
  artefact.id = manifest.text("id");
  artefact.graph = read_graph(manifest, "forward", program(manifest, folder, "model"));
  artefact.image = only_port(artefact.graph.inputs, "image", 4);
  artefact.logits = only_port(artefact.graph.outputs, "logits", 2);
  check_files(manifest, folder);
  return artefact;
}

Artefact parse(const Json& manifest, const std::string& folder, const std::string& runtime) {
  check_head(manifest, runtime, "translation");
  Artefact artefact;
  artefact.id = manifest.text("id");
  artefact.encoder = read_graph(manifest, "encoder", program(manifest, folder, "encoder"));
  artefact.step = read_graph(manifest, "decoder_step", program(manifest, folder, "decoder_step"));
  const Json& limits = manifest.object("limits");
  artefact.longest_source = static_cast<std::size_t>(limits.integer("source", 1, 1 << 16));
  artefact.longest_target = static_cast<std::size_t>(limits.integer("target", 2, 1 << 16));
  if (artefact.step.outputs.empty()) throw BadInput("decoder_step has no outputs");
  const PortSpec& logits = artefact.step.outputs[0];
  if (logits.dtype != DType::float32 || logits.shape.size() != 2 || !logits.shape[1].name.empty()) {
    throw BadInput("the first output of decoder_step is not float32 logits [batch, vocabulary]");
  }
  artefact.vocabulary = logits.shape[1].fixed;
  artefact.output_ids = read_output_ids(manifest);
  if (!artefact.output_ids.empty() && artefact.output_ids.size() != static_cast<std::size_t>(artefact.vocabulary)) {
    throw BadInput("'output_ids' has " + std::to_string(artefact.output_ids.size()) + " ids for " +
                   std::to_string(artefact.vocabulary) + " rows");
  }
  const Json& special = manifest.object("special");
  artefact.start = read_row(special, "start", artefact);
  artefact.eos = read_row(special, "eos", artefact);
  artefact.scoring = read_scoring(manifest);
  artefact.pad = find_row(special, "pad", artefact);
  if (const Json* forced = special.find("forced_eos"); forced != nullptr && forced->kind() != Json::Kind::null) {
    artefact.forced_eos = read_row(special, "forced_eos", artefact);
  }
  check_files(manifest, folder);
  return artefact;
}

// What `parse` makes of the manifest of `folder`; its complaints name the file.
template <typename Found>
Found read_manifest(const std::string& folder, const std::string& runtime,
                    Found (*parse)(const Json&, const std::string&, const std::string&)) {
  const std::string path = folder + "/manifest.json";
  const std::string text = read_file(path, kLargestManifest);
  try {
    return parse(Json::parse(text), folder, runtime);
  } catch (const BadInput& why) {
    throw BadInput(path + ": " + why.what());
  }
}

void check_side(const std::vector<PortSpec>& wanted, const std::vector<Port>& found, const std::string& side) {
  if (wanted.size() != found.size()) {
    throw BadInput(std::to_string(found.size()) + " " + side + "s instead of " + std::to_string(wanted.size()));
  }
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const PortSpec& port = wanted[i];
    const Port& real = found[place_of(found, port.name, i)];
    bool same = real.dtype == port.dtype && real.dims.rank() == port.shape.size();
    for (std::size_t axis = 0; same && axis < port.shape.size(); ++axis) {
      same = !port.shape[axis].name.empty() || real.dims[axis] < 0 || real.dims[axis] == port.shape[axis].fixed;
    }
    if (!same) throw BadInput(side + " '" + port.name + "' is " + name_of(real.dtype) + " " + real.dims.text());
  }
}

}  // namespace

Dims PortSpec::dims(std::int64_t batch, std::int64_t source, std::int64_t room) const {
  Dims dims;
  for (const Size& size : shape) {
    if (size.name.empty()) {
      dims.push_back(size.fixed);
    } else if (size.name == "batch") {
      dims.push_back(batch);
    } else if (size.name == "source" && source >= 0) {
      dims.push_back(source);
    } else if ((size.name == "past" || size.name == "cache") && room >= 0) {
      dims.push_back(room);
    } else {
      throw BadInput("manifest.json: '" + name + "' has the size '" + size.name + "', which it cannot have");
    }
  }
  return dims;
}

Artefact read_artefact(const std::string& folder, const std::string& runtime) {
  return read_manifest<Artefact>(folder, runtime, parse);
}

Classifier read_classifier(const std::string& folder, const std::string& runtime) {
  return read_manifest<Classifier>(folder, runtime, parse_classifier);
}

void check_ports(const GraphSpec& graph, const Call& call) {
  try {
    check_side(graph.inputs, call.inputs(), "input");
    check_side(graph.outputs, call.outputs(), "output");
  } catch (const BadInput& why) {
    throw BadInput(graph.file + " (" + graph.name + ") is not what its manifest says: " + why.what());
  }
}

std::size_t place_of(const std::vector<Port>& ports, const std::string& name, std::size_t place) {
  for (std::size_t i = 0; i < ports.size(); ++i) {
    if (!ports[i].name.empty() && ports[i].name == name) return i;
  }
  if (place < ports.size() && ports[place].name.empty()) return place;
  throw BadInput("there is no port '" + name + "'");
}

}  // namespace tprune
