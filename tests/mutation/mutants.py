#!/usr/bin/env python3
"""Breaks the line that gives a guarantee, one at a time, in a copy of the sources, and sees that a test fails.

  tests/mutation/mutants.py [--only TEXT] [--build FOLDER] [--jobs 2] [--list]

Prints a table: the guarantee, the line broken, the first test that failed. Exits 1 if a mutant lives, if a line is not
there any more (then mend the list), or if a test fails with nothing broken. The copy and its build stay in FOLDER.
"""
import argparse
import pathlib
import re
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Mutant:
    def __init__(self, guarantee, file, before, after, target, tests="*"):
        self.guarantee, self.file, self.before, self.after = guarantee, file, before, after
        self.target, self.tests = target, tests


MUTANTS = [
    # Numerics: docs/numerics.md
    Mutant("a gradient is quantised by its own tensor's exponent", "worker/accumulate/accumulator.cc",
           "exponents_[tensor] - loss_scale_, !defined_, sums", "exponents_[0] - loss_scale_, !defined_, sums",
           "accumulator_test"),
    Mutant("the loss scale is taken off where a gradient is quantised", "worker/accumulate/accumulator.cc",
           "exponents_[tensor] - loss_scale_, !defined_, sums", "exponents_[tensor], !defined_, sums", "accumulator_test"),
    Mutant("the loss scale is taken off what is reported of a gradient's size", "worker/accumulate/accumulator.cc",
           "CeilLog2(max_abs) - loss_scale_", "CeilLog2(max_abs)", "accumulator_test"),
    Mutant("the loss scale is taken off fast sums in the update", "worker/optimizer/training_state.cc",
           "mode_ == AccumulationMode::kFast ? accumulator.loss_scale_exponent() : 0", "0", "optimizer_test"),
    Mutant("the digest covers the loss scale to come", "worker/optimizer/training_state.cc",
           '      hasher.Update(absl::StrCat("loss_scale "', '      if (false) hasher.Update(absl::StrCat("loss_scale "',
           "optimizer_test"),
    Mutant("the loss scale multiplies the gradient of the loss", "worker/model/transformer.cc",
           "std::ldexp(1.0f, input.loss_scale_exponent)", "1.0f", "transformer_test"),
    Mutant("the loss scale falls after a gradient that is not finite", "common/loss_scale.h",
           "scale.exponent - 1 : kLeastLossScale, 0}", "scale.exponent : kLeastLossScale, 0}", "core_loss_scale_test"),
    Mutant("a window without a token leaves the loss scale as it is", "common/loss_scale.h",
           "    case WindowEnd::kEmpty:\n      return scale;", "    case WindowEnd::kEmpty:", "core_loss_scale_test"),
    Mutant("a restarted coordinator goes on with the loss scale on record", "coordinator/core/restore.cc",
           "  job.loss_scale = live.loss_scale;\n", "", "core_loss_scale_test"),
    Mutant("a job that goes back has the checkpoint's loss scale", "coordinator/core/recovery.cc",
           "  job.loss_scale = job.origin.loss_scale;\n", "", "core_loss_scale_test"),
    Mutant("a checkpoint has the loss scale of its state", "coordinator/core/checkpoints.cc",
           "  checkpoint.loss_scale = job.loss_scale;\n", "", "core_loss_scale_test"),
    Mutant("steps that followed seals of other loss scales are not of one kind", "coordinator/core/restore.cc",
           "step.next_loss_scale ? step.next_loss_scale->exponent : -1", "0", "core_loss_scale_test"),
    Mutant("a newcomer copies the loss scale", "worker/core/state_receiver.cc",
           "  loss_scale_ = Unpack(header.loss_scale);\n", "", "state_copy_test"),
    Mutant("binary16 is rounded to even where the processor does not convert it", "worker/backend/cpu/simd-inl.h",
           "hn::Add(hn::Add(magnitude, hn::Set(DU(), 0xFFF)), odd)", "hn::Add(magnitude, hn::Set(DU(), 0xFFF))", "f16_test"),
    Mutant("who cannot compute a job's precision is refused", "coordinator/core/members.cc",
           "      if (numeric_class.empty()) {", "      if (false) {", "core_members_test"),
    Mutant("a new window begins with no unit of the last", "worker/accumulate/accumulator.cc",
           "    final_buckets_ = 0;\n    phase_ = Phase::kBetween;\n    defined_ = false;",
           "    final_buckets_ = 0;\n    phase_ = Phase::kBetween;", "accumulator_test"),
    Mutant("checksums name the place of what they sum", "worker/accumulate/accumulator.cc",
           "            ChunkWeight(run.first_chunk + i) * chunk_stats_[i].weighted_sum;",
           "            ChunkWeight(run.first_chunk) * chunk_stats_[i].weighted_sum;", "accumulator_test"),
    Mutant("exponents leave headroom for the next window", "common/exponents.cc", " - kHeadroomBits", "", "common_test"),
    Mutant("a window that overflows is replayed", "coordinator/core/seal.cc", "  if (replayed) {", "  if (false) {",
           "core_window_test"),
    Mutant("a worker's first unit does not decide what it gets", "coordinator/core/reports.cc",
           "  worker.measured_once = first;", "", "core_window_test"),
    Mutant("who gets no units is tried again", "coordinator/core/planning.cc",
           ".belief *= kBeliefInIdle;", ".belief *= 1;", "core_window_test"),
    Mutant("a window with a gradient that is not finite is skipped", "coordinator/core/seal.cc",
           "const bool skipped = totals.non_finite || totals.valid_tokens == 0;\n  const bool replayed",
           "const bool skipped = totals.valid_tokens == 0;\n  const bool replayed", "core_window_test"),
    Mutant("the sum is divided by the window's valid tokens, once", "worker/optimizer/training_state.cc",
           "clip_coefficient / static_cast<double>(input.valid_tokens)", "clip_coefficient",
           "optimizer_test"),
    Mutant("the gradient is clipped by its global norm", "worker/optimizer/training_state.cc",
           "std::min(1.0, config_.clip_norm / (outcome.gradient_norm + 1e-6))", "1.0", "optimizer_test"),
    Mutant("only matrices decay", "worker/engine/layout.cc", "tensor.decays = shape.shape.size() >= 2;",
           "tensor.decays = true;", "golden_training_test"),
    Mutant("the digest covers the exponents to come", "worker/optimizer/training_state.cc",
           'hasher.Update(exponents_.empty() ? std::string("-\\n") : absl::StrCat(exponents_[t], "\\n"));', "",
           "optimizer_test"),
    Mutant("the digest covers every optimizer moment", "worker/optimizer/training_state.cc",
           "    hasher.Update(hashes_.data(), hashes_.size() * sizeof(Hash128));\n    return hasher.Finish();\n  }\n\n  const",
           "    hasher.Update(hashes_.data(), hashes_.size() / 3 * sizeof(Hash128));\n    return hasher.Finish();\n  }\n\n"
           "  const", "optimizer_test"),
    Mutant("warm-up runs at rate * (w + 1) / warmup", "common/schedule.cc", "static_cast<double>(window + 1) /",
           "static_cast<double>(window) /", "common_test"),
    Mutant("dropout is keyed by unit", "worker/model/passes.cc", ".unit = pass.unit, .site = site", ".unit = 0, .site = site",
           "transformer_test"),
    # Data
    Mutant("each epoch has an order of its own", "common/data/dataset.cc", "options_.seed, epoch)(index)",
           "options_.seed, 0)(index)", "dataset_test"),
    Mutant("a shard that changed since submit is refused", "common/data/dataset.cc",
           "  ACCRUE_RETURN_IF_ERROR(CheckHash(reference.path, *file, reference.xxh3_128));\n", "", "dataset_test"),
    Mutant("a truncated shard is refused", "common/data/shard.cc", "  if (size != expected_size) {", "  if (false) {",
           "dataset_test"),
    Mutant("token ids beyond the vocabulary are refused", "common/data/shard.cc",
           "  if (place == info_.tokens) return absl::OkStatus();", "  if (place >= 0) return absl::OkStatus();",
           "dataset_test"),
    Mutant("overlapping safetensors are refused", "worker/checkpoint/safetensors_header.cc",
           "    if (tensor.begin < covered)\n", "    if (false)\n", "safetensors_test"),
    # The window
    Mutant("nothing seals before every unit is done", "coordinator/core/seal.cc",
           "if (!run.leases.complete() || run.evaluation) return false;\n"
           "  if (run.computed < static_cast<int64_t>(job.members.size())) return false;",
           "if (run.evaluation) return false;", "core_window_test"),
    Mutant("a unit counts for the worker that holds its lease", "coordinator/core/reports.cc",
           "if (!run->leases.Holds(event.from, report.unit)) {", "if (false) {", "core_window_test"),
    Mutant("a unit that is reported twice counts once", "coordinator/core/reports.cc",
           "if (run->leases.Done(report.unit)) {", "if (false) {", "core_window_test"),
    Mutant("what was said of a void attempt does not count", "coordinator/core/reports.cc",
           "if ((*run)->attempt == key.attempt) return &**run;", "return &**run;", "core_window_test"),
    Mutant("steps that follow an older seal do not count", "coordinator/core/commit.cc",
           "if (!run->sealed || event.key.epoch != run->sealed->epoch)", "if (!run->sealed)", "core_recovery_test"),
    Mutant("members that end in different states do not commit", "coordinator/core/commit.cc",
           "if (winner->second.size() * 2 <= job.members.size()) {", "if (false) {", "core_disagreement_test"),
    Mutant("a window that is computed again must have its digest", "coordinator/core/commit.cc",
           "if (job.config.exact && recorded != job.recorded.end() && recorded->second != digest) {", "if (false) {",
           "core_members_test"),
    Mutant("parameters are those of the last commit", "coordinator/core/seal.cc",
           "if (!ParameterHashesAgree(job)) return true;", "", "core_disagreement_test"),
    Mutant("a reduced bucket is the sum of its units", "worker/core/reducer.cc",
           "if (found == seal.bucket_checksums(bucket)) return absl::OkStatus();", "return absl::OkStatus();",
           "window_runner_test:window_recovery_test"),
    Mutant("a bucket that is final takes no unit more", "worker/accumulate/accumulator.cc",
           "phase_ == Phase::kUnit && !final(run.bucket)", "phase_ == Phase::kUnit", "accumulator_test"),
    # A copy of the state beside the work
    Mutant("a source computes on in another buffer than the one it sends", "worker/accumulate/accumulator.cc",
           "    std::swap(buffer_, replacement);\n", "", "state_copy_test"),
    Mutant("a source sends what a window added before it goes on with the state", "worker/core/state_sender.cc",
           "    if (has_something() && !followed_.empty()) {",
           "    if (has_something() && !followed_.empty() && next_run_ == runs_.size()) {", "state_copy_test"),
    Mutant("a newcomer steps by the exponents of the window", "worker/core/state_receiver.cc",
           "exponents[run.tensor], header", "exponents_[run.tensor], header", "state_copy_test"),
    Mutant("a newcomer that is to leave does so in the middle of a copy", "worker/core/runner_copying.cc",
           "context_.inbox.HasDrain()", "false", "state_copy_test"),
    Mutant("a copy ends with the coordinator that ordered it", "worker/core/collective_guard.cc",
           "  newest_copy_.clear();\n", "", "collective_guard_test:state_copy_test"),
    Mutant("a newcomer is a member by the digest of the last commit alone", "coordinator/core/copying.cc",
           "(worker.held_digest == job.digest ? level : garbled)", "level", "core_copying_test"),
    Mutant("a copy ends with its source", "coordinator/core/members.cc",
           '  CancelCopiesOf(job, incarnation, absl::StrCat("the source is gone: ", NameOf(incarnation)));\n', "",
           "core_copying_test"),
    Mutant("a newcomer that is always one window late is waited for", "coordinator/core/seal.cc", " || AwaitsCopy(job)", "",
           "core_copying_test"),
    Mutant("the last rows of a product have the scratch that they need", "worker/backend/cpu/linear.cc",
           "for (const int64_t rows : {tiling.tile_rows, tiling.LastRows()}) {",
           "for (const int64_t rows : {tiling.tile_rows}) {", "model_ops_test"),
    # A communicator formed beside the work
    Mutant("who has copied the state is level when it becomes a member, however long the communicator took",
           "coordinator/core/preparing.cc", "return all_level ? joiners : std::vector<Incarnation>();", "return joiners;",
           "core_copying_test:sim_test"),
    Mutant("a communicator formed ahead is of the members that the seal names", "coordinator/core/preparing.cc",
           " || job.preparation->members != members", "", "sim_test"),
    Mutant("members wait until all have formed the communicator with a newcomer", "coordinator/core/preparing.cc",
           "  if (!preparation.waiting.empty()) return {};\n", "", "core_copying_test"),
    Mutant("a worker that cannot form a communicator ahead keeps nobody out", "coordinator/core/preparing.cc",
           "copy.unprepared = true;", "copy.unprepared = false;", "core_copying_test"),
    Mutant("a worker that is silent about it keeps nobody out for long", "coordinator/core/jobs.cc",
           "    GiveUpLatePreparation(*job);\n", "", "core_copying_test"),
    Mutant("a communicator formed ahead is given up with a change of the membership", "coordinator/core/members.cc",
           "  CancelPreparation(job);  // it was for other members than there will be\n", "", "core_copying_test"),
    Mutant("no communicator is formed over one that a seal is yet to use", "coordinator/core/preparing.cc",
           " && !job.formed_ahead", "", "core_copying_test"),
    Mutant("a window that is skipped leaves the communicator formed ahead for the next", "coordinator/core/seal.cc",
           "  if (!skipped) job.formed_ahead = false;", "  job.formed_ahead = false;", "core_copying_test"),
    Mutant("a reduce uses the communicator that was formed ahead", "worker/core/reducer.cc",
           "preparer_ == nullptr ? nullptr : preparer_->Take(name_, rank, size)", "nullptr", "preparer_test"),
    Mutant("an order to form a communicator ends the one before", "worker/core/preparer.cc",
           "  if (meeting_ != nullptr) meeting_->Abort();\n", "", "preparer_test"),
    Mutant("what is sent of a window to a newcomer has committed", "worker/core/state_sender.cc", "return !held_ && (", "return (",
           "state_sender_test"),
    # What survives
    Mutant("a commit is on the disk before it is told", "coordinator/journal/sqlite_journal.cc",
           "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL", "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF",
           "journal_test"),
    Mutant("a checkpoint's files are verified before it counts", "coordinator/server/checkpoint_keeper.cc",
           "absl::Status status = VerifyFiles(file_system_, directory, manifest);", "absl::Status status;",
           "server_unit_test"),
    Mutant("a damaged checkpoint gives way to the one before", "coordinator/server/output_folder.cc",
           "  ACCRUE_RETURN_IF_ERROR(VerifyFiles(file_system, entry.directory, manifest));\n", "", "server_unit_test"),
    Mutant("another job's folder is refused", "coordinator/server/output_folder.cc",
           "  if (differences.empty()) return absl::OkStatus();", "  return absl::OkStatus();",
           "server_unit_test"),
    Mutant("files are replaced whole or not at all", "common/file_system.cc",
           'const std::string temporary = absl::StrCat(path, ".partial");', "const std::string temporary = path;",
           "common_test"),
    Mutant("workers of a bf16 job are of one class in bf16", "coordinator/core/events.h",
           "        return bf16_numeric_class;", "        return numeric_class;", "core_members_test"),
    Mutant("a strict job takes one class", "coordinator/core/classes.cc", "  if (!job.config.mixed_classes) return absl::StrCat(differs",
           "  if (false) return absl::StrCat(differs", "core_classes_test"),
    Mutant("backends are not mixed", "coordinator/core/classes.cc",
           "  if (BackendOf(numeric_class) == BackendOf(job.numeric_class)) return \"\";", "  return \"\";", "core_classes_test"),
    Mutant("a mixed job is marked before its members are told", "coordinator/core/members.cc",
           "  NoteClasses(job, members);\n", "", "core_classes_test"),
    Mutant("a mixed job's mark is durable", "coordinator/core/classes.cc",
           "not reproducible any more: \", job.mixed));\n  PersistLayoutOf(job);",
           "not reproducible any more: \", job.mixed));", "core_classes_test"),
    Mutant("audits ask a worker of the holder's class", "coordinator/core/audit.cc",
           " &&\n               SameClass(job, candidate.worker, holder);", ";", "core_classes_test"),
    Mutant("words of another class do not count", "coordinator/core/audit.cc", "  KeepComparable(job, audit, holder);\n", "",
           "core_classes_test"),
    Mutant("a mix need not come out as recorded", "coordinator/core/machine.h",
           "return config.exact && mixed.empty();", "return config.exact;", "core_classes_test"),
    Mutant("a checkpoint of a mixture says so", "coordinator/core/checkpoints.cc", "  checkpoint.mixed = job.mixed;\n", "",
           "core_classes_test"),
    Mutant("the journal keeps the mark", "coordinator/journal/sqlite_journal.cc", ".Bind(e.layout.mixed).Run();",
           ".Bind(absl::string_view()).Run();", "journal_test"),
    Mutant("an abort ends a reduce that waits for half a message", "worker/collective/gloo_mesh.cc",
           "    transport_->Abort();", "", "gloo_collective_test", "*MiddleOfAMessage*"),
    Mutant("a worker of another version is refused", "coordinator/server/worker_service.cc",
           "if (hello.version() != kVersion) {", "if (false) {", "server_test"),
    Mutant("a client finds a coordinator that is back", "client/job_client.cc",
           "    channel_->WaitForConnected(", "    if (timeout_ms < 0) channel_->WaitForConnected(", "client_test"),
    # GPUs: docs/cuda.md
    Mutant("a collective follows the computation", "worker/collective/nccl/nccl_collective.cc",
           "    calls_.FollowCompute();\n", "", "nccl_collective_test"),
    Mutant("an operation that an error ended is no success", "worker/collective/nccl/nccl_collective.cc",
           "    if (const int asked = calls_.AsyncError(handle_, state); asked != kSuccess) state = asked;\n"
           "    return AwaitNccl(state, what, end_ns);\n  }\n\n  template",
           "    return AwaitNccl(state, what, end_ns);\n  }\n\n  template", "nccl_collective_test"),
    Mutant("a failed communicator is aborted", "worker/collective/nccl/nccl_collective.cc",
           "if (handle_ != nullptr) calls_.Abort(std::exchange(handle_, nullptr));", "", "nccl_collective_test"),
    Mutant("members count themselves when they meet", "worker/collective/nccl/nccl_collective.cc",
           "    if (members == size_) return absl::OkStatus();", "    return absl::OkStatus();", "nccl_collective_test"),
    Mutant("a plugin of another build is refused", "worker/backend/plugin/plugin_loader.cc", "  if (found != needed) {",
           "  if (false) {", "choose_backend_test"),
    Mutant("a GPU without code for it is refused", "worker/backend/plugin/gpu_probe.cc",
           "return gpu.major == architecture / 10 && gpu.minor >= architecture % 10;",
           "return gpu.major >= architecture / 10;", "gpu_probe_test"),
    Mutant("an old driver is refused", "worker/backend/plugin/gpu_probe.cc",
           "if (report.driver_version < needs.driver_version)", "if (false)", "gpu_probe_test"),
    Mutant("processes that share a GPU are told apart", "worker/backend/plugin/gpu_slot.cc",
           "flock(descriptor, LOCK_EX | LOCK_NB) == 0", "true", "gpu_slot_test"),
    Mutant("a product takes for granted what all its places keep", "worker/backend/cuda/linear.cc",
           "  if (operands.aux != nullptr) problem.align_d = std::min(problem.align_d, AlignmentOf(operands.aux));\n", "",
           "cuda_linear_test"),
    # Traces: docs/tracing.md
    Mutant("a trace begins at the second window", "worker/trace/tracer.h", "State state_ = State::kBefore",
           "State state_ = State::kRecording", "tracer_test"),
    Mutant("a trace is whole: its last window has committed", "worker/trace/tracer.cc", " && window == last_window_) Write",
           " && window >= 0) Write", "tracer_test"),
    Mutant("a trace takes the memory that was taken ahead", "worker/trace/tracer.cc",
           "if (events_.size() < options_.most_spans)", "if (true)", "tracer_test"),
    Mutant("a communicator that meets on another thread tells the tracer nothing of it",
           "worker/trace/traced_collectives.h", "/*traces_meeting=*/false", "/*traces_meeting=*/true", "tracer_test"),
    Mutant("the wait for a seal ends with it", "worker/core/window_runner.cc", "EndOpen(Span::kWaitForSeal, sealed_ns)",
           "Now()", "window_trace_test"),
]


def run(command, **options):
    return subprocess.run(command, capture_output=True, text=True, **options)


def copy_sources(folder):
    """The tracked files; those that did not change keep their time, so that little is built again."""
    for name in run(["git", "ls-files"], cwd=ROOT).stdout.splitlines():
        source, copy = ROOT / name, folder / name
        contents = source.read_bytes()
        if copy.exists() and copy.read_bytes() == contents:
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(contents)
        copy.chmod(source.stat().st_mode)


def build(folder, targets, jobs):
    return run(["ninja", "-C", str(folder / "build/dev"), f"-j{jobs}", *targets])


def failing_test(folder, mutant, timeout_s=120):
    """The first test that fails, or None."""
    for target in mutant.target.split(":"):
        try:
            result = run([str(folder / "build/dev/tests" / target), f"--gtest_filter={mutant.tests}", "--gtest_fail_fast"],
                         cwd=folder, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            return f"{target}: not done after {timeout_s} s"
        if result.returncode == 0:
            continue
        failed = re.search(r"\[  FAILED  \] ([^ ,\n]+)", result.stdout)
        running = re.findall(r"\[ RUN      \] (\S+)", result.stdout)
        return failed.group(1) if failed else f"{running[-1] if running else target} (ended by {-result.returncode})"
    return None


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--only", default="", help="mutants whose guarantee or file has this in it")
    p.add_argument("--build", default=str(ROOT / "build/mutation"), help="folder of the copy")
    p.add_argument("--jobs", type=int, default=2)
    p.add_argument("--list", action="store_true")
    a = p.parse_args()
    chosen = [m for m in MUTANTS if a.only in m.guarantee or a.only in m.file]
    for m in chosen:
        found = (ROOT / m.file).read_text().count(m.before)
        if found != 1:
            sys.exit(f"{m.file} has {found} times, not once:\n{m.before}")
    if a.list:
        print("\n".join(f"{m.guarantee}: {m.file}" for m in chosen))
        return 0

    folder = pathlib.Path(a.build)
    folder.mkdir(parents=True, exist_ok=True)
    copy_sources(folder)
    configured = run(["cmake", "--preset", "dev"], cwd=folder)
    targets = sorted({t for m in chosen for t in m.target.split(":")})
    built = build(folder, targets, a.jobs) if configured.returncode == 0 else configured
    if built.returncode != 0:
        sys.exit(f"the copy does not build:\n{(built.stdout + built.stderr)[-3000:]}")
    for m in {m.target: m for m in chosen}.values():
        if failed := failing_test(folder, m):
            sys.exit(f"fails with nothing broken: {failed}")

    print("| guarantee | broken in | seen by | s |\n|---|---|---|---|", flush=True)
    lived = 0
    for m in chosen:
        begin = time.monotonic()
        path = folder / m.file
        whole = path.read_text()
        path.write_text(whole.replace(m.before, m.after))
        try:
            built = build(folder, m.target.split(":"), a.jobs)
            seen = failing_test(folder, m) if built.returncode == 0 else None
            said = "does not build: " + built.stdout[-500:] if built.returncode != 0 else seen or "NOTHING"
        finally:
            path.write_text(whole)
        lived += seen is None
        print(f"| {m.guarantee} | `{m.file}` | {said} | {time.monotonic() - begin:.0f} |", flush=True)
    print(f"{len(chosen) - lived} of {len(chosen)} were seen")
    return 1 if lived else 0


if __name__ == "__main__":
    sys.exit(main())
