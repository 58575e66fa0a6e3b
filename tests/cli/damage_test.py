"""Damaged checkpoints and journals: the previous one is used, and it says so."""
import glob
import os

import harness
from harness import CliTest


def flip_byte(path, at):
    """Changes one byte; a negative `at` counts from the end."""
    with open(path, "r+b") as file:
        data = bytearray(file.read())
        data[at] ^= 0xFF
        file.seek(0)
        file.write(data)


class DamageTest(CliTest):

    def setUp(self):
        super().setUp()
        self.job = self.write_job(windows=8, checkpoint={"every_windows": 2, "keep": 9})
        self.run_job(self.job, "--until", 6, workers=2)

    def digests(self):
        return [line["digest"] for line in self.windows()]

    def expect_previous(self, *parts):
        """The run goes on from window 4 instead of 6, and comes to the same."""
        before = self.digests()
        outcome = self.run_job(self.job)
        self.assert_says(outcome.err, "warning: the checkpoint at window 6", "set aside", "Resuming after window 4",
                         *parts)
        after = self.digests()
        self.assertEqual(after[:6], before)
        self.assertEqual([line["window"] for line in self.windows()], list(range(8)))
        self.assertEqual(self.checkpoints()[-1], 8)

    def test_flipped_byte_in_a_shard(self):
        shard = sorted(glob.glob(os.path.join(self.checkpoint_folder(6), "*.safetensors")))[1]
        flip_byte(shard, -5)
        self.expect_previous(shard)

    def test_truncated_shard(self):
        shard = sorted(glob.glob(os.path.join(self.checkpoint_folder(6), "*.safetensors")))[0]
        os.truncate(shard, 100)
        self.expect_previous(shard)

    def test_missing_shard(self):
        shard = sorted(glob.glob(os.path.join(self.checkpoint_folder(6), "*.safetensors")))[0]
        os.remove(shard)
        self.expect_previous(shard)

    def test_damaged_manifest(self):
        manifest = os.path.join(self.checkpoint_folder(6), "manifest.json")
        os.truncate(manifest, os.path.getsize(manifest) // 2)
        self.expect_previous(manifest)

    def test_written_anew_by_fewer_workers_nothing_of_the_former_is_left(self):
        folder = self.checkpoint_folder(6)
        self.assertEqual(len(glob.glob(os.path.join(folder, "*.safetensors"))), 2)
        shard = sorted(glob.glob(os.path.join(folder, "*.safetensors")))[0]
        flip_byte(shard, -5)
        self.expect_previous(shard)
        self.assertEqual(sorted(os.listdir(folder)), ["manifest.json", "state-00001-of-00001.safetensors"])

    def test_all_damaged_starts_from_the_beginning_and_says_so(self):
        before = self.digests()
        for window in self.checkpoints():
            flip_byte(glob.glob(os.path.join(self.checkpoint_folder(window), "*.safetensors"))[0], -5)
        outcome = self.run_job(self.job)
        self.assert_says(outcome.err, "no checkpoint is left: the job starts from its beginning")
        self.assertEqual(self.digests()[:6], before)

    def test_chosen_checkpoint_is_damaged(self):
        shard = glob.glob(os.path.join(self.checkpoint_folder(4), "*.safetensors"))[0]
        flip_byte(shard, -5)
        before = self.read("out", "windows.jsonl")
        outcome = self.start("accrue", "run", self.job, "--output", self.path("out"), "--resume-from", "4").wait()
        self.assertIn(outcome.code, (harness.ERROR, harness.REFUSED), outcome)
        self.assert_says(outcome.err, shard)
        self.assertEqual(self.read("out", "windows.jsonl"), before)
        self.assertEqual(self.checkpoints(), [2, 4, 6])

    def test_damaged_journal(self):
        before = self.digests()
        journal = self.path("out", "coordinator", "journal.db")
        for name in glob.glob(journal + "-*"):
            os.remove(name)
        with open(journal, "r+b") as file:
            file.write(b"not a database" * 100)
        outcome = self.run_job(self.job)
        self.assert_says(outcome.err, "Resuming after window 6")
        self.assert_says(self.read("out", "logs", "coordinator.log"), "journal", "damaged")
        self.assertEqual(self.digests()[:6], before)
        self.assertEqual([line["window"] for line in self.windows()], list(range(8)))

    def test_damaged_journal_without_a_copy(self):
        before = self.digests()
        for name in glob.glob(self.path("out", "coordinator", "journal.db*")):
            os.truncate(name, 0)
            with open(name, "wb") as file:
                file.write(b"garbage" * 1000)
        self.run_job(self.job)
        self.assertEqual(self.digests()[:6], before)

    def test_torn_last_line_of_the_window_log(self):
        before = self.read("out", "windows.jsonl")
        with open(self.path("out", "windows.jsonl"), "a", encoding="utf-8") as file:
            file.write('{"window":6,"loss":4.')
        self.run_job(self.job)
        self.assertEqual([line["window"] for line in self.windows()], list(range(8)))
        self.assertTrue(self.read("out", "windows.jsonl").startswith(before))

    def test_folder_without_its_job_file_is_refused(self):
        os.remove(self.path("out", "job.json"))
        outcome = self.run_job(self.job, code=harness.REFUSED)
        self.assert_says(outcome.err, "no job.json", "--fresh")
        self.assertEqual(self.checkpoints(), [2, 4, 6])


if __name__ == "__main__":
    harness.main()
