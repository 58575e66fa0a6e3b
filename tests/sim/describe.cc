#include "tests/sim/describe.h"

#include <bit>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace accrue::core {
namespace {

std::string Text(const Key& key) {
  return absl::StrCat("[", key.job, " term ", key.term.value(), " timeline ", key.timeline.value(), " epoch ",
                      key.epoch.value(), " to ", key.incarnation.value(), " window ", key.window.value(), ".",
                      key.attempt.value(), "]");
}
std::string Text(const std::vector<UnitRange>& ranges) {
  return absl::StrJoin(ranges, ",", [](std::string* out, const UnitRange& range) {
    absl::StrAppend(out, range.first, "+", range.count);
  });
}
std::string Text(const std::vector<Incarnation>& workers) {
  return absl::StrJoin(workers, ",",
                       [](std::string* out, Incarnation worker) { absl::StrAppend(out, worker.value()); });
}
std::string Text(const CheckpointOrder& order) {
  return absl::StrCat("checkpoint ", order.window.value(), " shard ", order.shard, "/", order.shards);
}

std::string Text(const std::optional<LossScale>& scale) {
  return scale ? absl::StrCat(" loss scale 2^", scale->exponent, " after ", scale->good_windows) : "";
}

struct MessageText {
  std::string operator()(const AssignJob& m) const {
    return absl::StrCat("AssignJob ", Text(m.key), " start ", static_cast<int>(m.start), " ",
                        m.checkpoint_directory);
  }
  std::string operator()(const ProbeOrder& m) const { return absl::StrCat("ProbeOrder ", Text(m.key), Text(m.loss_scale)); }
  std::string operator()(const Plan& m) const {
    return absl::StrCat("Plan ", Text(m.key), " units ", Text(m.units), " scalars ",
                        m.scalars.learning_rate_bits, ",", m.scalars.bias_correction1_bits, ",",
                        m.scalars.bias_correction2_bits, " exponents ", absl::StrJoin(m.exponents, ","),
                        " evaluation ", Text(m.evaluation_units), m.evaluation_only ? " only" : "", " audit ",
                        Text(m.audit_units), Text(m.loss_scale));
  }
  std::string operator()(const Recall& m) const {
    return absl::StrCat("Recall ", Text(m.key), " units ", m.units);
  }
  std::string operator()(const Prepare& m) const {
    return absl::StrCat("Prepare ", Text(m.key), " members ", Text(m.members), " over ", m.communicator);
  }
  std::string operator()(const Seal& m) const {
    return absl::StrCat("Seal ", Text(m.key), " verdict ", static_cast<int>(m.verdict), " members ",
                        Text(m.members), " over ", m.communicator, " tokens ", m.valid_tokens, " checksums ",
                        absl::StrJoin(m.bucket_checksums, ","), " next ",
                        absl::StrJoin(m.next_exponents, ","), " final ", absl::StrJoin(m.final_buckets, ","), " ",
                        m.checkpoint ? Text(*m.checkpoint) : std::string(), Text(m.next_loss_scale));
  }
  std::string operator()(const Replay& m) const {
    return absl::StrCat("Replay ", Text(m.key), " ", m.reason);
  }
  std::string operator()(const Commit& m) const {
    return absl::StrCat("Commit ", Text(m.key), " ", m.digest);
  }
  std::string operator()(const Abort& m) const { return absl::StrCat("Abort ", Text(m.key), " ", m.reason); }
  std::string operator()(const StateSync& m) const {
    return absl::StrCat("StateSync ", Text(m.key), " members ", Text(m.members), " over ", m.communicator,
                        " from ", m.source.value());
  }
  std::string operator()(const CopyState& m) {
    return absl::StrCat("CopyState ", m.communicator, m.end ? " ends" : "");
  }
  std::string operator()(const CheckpointNow& m) const {
    return absl::StrCat("CheckpointNow ", Text(m.key), " ", Text(m.order));
  }
  std::string operator()(const Release& m) const {
    return absl::StrCat("Release ", Text(m.key), " ", m.reason);
  }
};

struct EffectText {
  std::string operator()(const Send& e) const {
    return absl::StrCat("-> ", e.to.value(), " ", std::visit(MessageText(), e.message));
  }
  std::string operator()(const Expel& e) const {
    return absl::StrCat("Expel ", e.worker.value(), e.rejoin ? " (may rejoin) " : " ", e.reason);
  }
  std::string operator()(const PersistEpoch& e) const {
    return absl::StrCat("PersistEpoch timeline ", e.timeline.value(), " epoch ", e.epoch.value(), " attempt ",
                        e.attempt.value(), " members ", Text(e.members));
  }
  std::string operator()(const PersistExponents& e) const {
    return absl::StrCat("PersistExponents ", absl::StrJoin(e.exponents, ","));
  }
  std::string operator()(const PersistAttempt& e) const {
    return absl::StrCat("PersistAttempt window ", e.window.value(), ".", e.attempt.value());
  }
  std::string operator()(const PersistCommit& e) const {
    const WindowRecord& r = e.record;
    return absl::StrCat("PersistCommit window ", r.window.value(), ".", r.attempt.value(), " ", r.digest,
                        " loss ", std::bit_cast<uint64_t>(r.loss), " tokens ", r.tokens, " steps ", r.steps,
                        r.skipped ? " skipped" : "", " workers ", r.workers.size());
  }
  std::string operator()(const PersistPosition& e) const {
    return absl::StrCat("PersistPosition timeline ", e.timeline.value(), " window ", e.window.value(), " steps ",
                        e.steps, " ", e.digest, " exponents ", absl::StrJoin(e.exponents, ","), Text(e.loss_scale));
  }
  std::string operator()(const PersistLayout& e) const {
    return absl::StrCat("PersistLayout ", e.layout.numeric_class, " ",
                        absl::StrJoin(e.layout.tensor_elements, ","), " in ", e.layout.buckets);
  }
  std::string operator()(const PersistEvaluation& e) const {
    return absl::StrCat("PersistEvaluation ", e.window.value(), " ", std::bit_cast<uint64_t>(e.loss), " ",
                        e.tokens);
  }
  std::string operator()(const PersistCheckpoint& e) const {
    return absl::StrCat("PersistCheckpoint ", e.window.value(), " ", e.digest);
  }
  std::string operator()(const PersistState& e) const {
    return absl::StrCat("PersistState ", static_cast<int>(e.state), " ", e.reason);
  }
  std::string operator()(const PersistLedger& e) const {
    return absl::StrCat("Ledger ", e.entry.kind, " (window ", e.entry.window.value(), ") ", e.entry.reason);
  }
  std::string operator()(const FinishCheckpoint& e) const {
    return absl::StrCat("FinishCheckpoint ", e.window.value(), " ", e.digest, " files ", e.files.size());
  }
  std::string operator()(const GiveUpCommunicator& e) const {
    return absl::StrCat("GiveUp ", e.communicator);
  }
};

}  // namespace

std::string Describe(const Effect& effect) { return std::visit(EffectText(), effect); }

}  // namespace accrue::core
