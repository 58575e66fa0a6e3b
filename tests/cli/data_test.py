"""Token shards that are wrong are refused at submit, by path and with what was expected and found."""
import os
import struct

import harness
from harness import CliTest, tokens_of, write_shard


class DataTest(CliTest):

    def setUp(self):
        super().setUp()
        self.start_coordinator()

    def refuse(self, *parts, code=harness.INVALID_SPEC, **changes):
        """A job that must be refused for its data, saying all of `parts`."""
        job = self.write("job.yaml", harness.job_text(**changes))
        outcome = self.accrue("submit", job, "--output", self.path("out"), code=code)
        self.assert_says(outcome.err, *parts)
        self.assertEqual(outcome.out, "")
        self.assertFalse(os.path.exists(self.path("out")))
        return outcome

    def shard(self, name="train.bin"):
        return self.path(name)

    def test_run_refuses_and_leaves_no_window(self):
        self.write("train.bin", b"no tokens")
        outcome = self.run_job(self.write("job.yaml", harness.job_text()), code=harness.INVALID_SPEC)
        self.assert_says(outcome.err, self.shard())
        self.assertEqual(outcome.out, "")
        self.assertFalse(os.path.exists(self.path("out", "windows.jsonl")))
        write_shard(self.shard(), tokens_of(1000))
        self.run_job(self.path("job.yaml"))

    def test_missing_shard(self):
        self.refuse(self.path("train.bin"), code=harness.NOT_FOUND)
        self.refuse("data.train: ", self.path("none-*.bin"), code=harness.NOT_FOUND, data={"train": ["none-*.bin"]})
        self.refuse(self.path("gone.bin"), code=harness.NOT_FOUND, data={"train": ["gone.bin"]})

    def test_missing_validation_shard(self):
        write_shard(self.shard(), tokens_of(1000))
        self.refuse("data.validation: ", self.path("validation.bin"), code=harness.NOT_FOUND, data={"validation": ["validation.bin"]})

    def test_truncated_shard(self):
        write_shard(self.shard(), tokens_of(1000), count=1001)
        self.refuse(self.shard(), 1024 + 2002, 1024 + 2000)

    def test_shard_longer_than_it_says(self):
        write_shard(self.shard(), tokens_of(1000), count=900)
        self.refuse(self.shard(), 1024 + 1800, 1024 + 2000)

    def test_shard_without_a_whole_header(self):
        for content in (b"", b"\x00", struct.pack("<3i", 20240520, 1, 1000)):
            self.write("train.bin", content)
            self.refuse(self.shard(), "1024")

    def test_wrong_magic(self):
        write_shard(self.shard(), tokens_of(1000), magic=12345678)
        self.refuse(self.shard(), 12345678, 20240520)

    def test_wrong_version(self):
        write_shard(self.shard(), tokens_of(1000), version=9)
        self.refuse(self.shard(), "version", 9)

    def test_absurd_counts(self):
        for count in (-1, 0x7FFFFFFF, 0):
            with self.subTest(count=count):
                write_shard(self.shard(), tokens_of(1000), count=count)
                self.refuse(self.shard())

    def test_token_beyond_the_vocabulary(self):
        tokens = tokens_of(1000)
        tokens[777] = harness.VOCABULARY
        write_shard(self.shard(), tokens)
        self.refuse(self.shard(), 777, harness.VOCABULARY, "vocabulary")

    def test_32_bit_token_beyond_the_vocabulary(self):
        tokens = tokens_of(1000)
        tokens[5] = 4000000000
        write_shard(self.shard(), tokens, magic=20240801, version=7, width="I")
        self.refuse(self.shard(), 4000000000, "vocabulary")

    def test_token_beyond_the_vocabulary_in_validation(self):
        write_shard(self.shard(), tokens_of(1000))
        write_shard(self.path("validation.bin"), tokens_of(999) + [500])
        self.refuse(self.path("validation.bin"), 999, 500, data={"validation": ["validation.bin"]})

    def test_too_little_data_for_one_window(self):
        write_shard(self.shard(), tokens_of(8 * harness.SEQUENCE_LENGTH))  # one token short
        self.refuse("too little data", "batch.sequences is 8", "hold 7")
        write_shard(self.shard(), tokens_of(8 * harness.SEQUENCE_LENGTH + 1))
        self.accrue("submit", self.write("job.yaml", harness.job_text(windows=1)))

    def test_too_little_data_for_one_sequence(self):
        write_shard(self.shard(), tokens_of(harness.SEQUENCE_LENGTH))
        self.refuse("too little data")

    def test_too_little_validation_data(self):
        write_shard(self.shard(), tokens_of(1000))
        write_shard(self.path("validation.bin"), tokens_of(harness.SEQUENCE_LENGTH + 1))
        self.refuse("data.validation", data={"validation": ["validation.bin"]})

    def test_shard_is_a_folder(self):
        os.makedirs(self.shard())
        self.refuse(self.shard())

    def test_manifest_that_is_none_or_contradicts_the_shard(self):
        write_shard(self.shard(), tokens_of(1000))
        self.write("manifest.json", "{")
        self.refuse(self.path("manifest.json"))

    def test_32_bit_shards_train_as_16_bit_ones(self):
        tokens = tokens_of(1000)
        write_shard(self.shard(), tokens)
        narrow = self.run_job(self.write("job.yaml", harness.job_text(windows=2)), output="narrow").result
        write_shard(self.shard(), tokens, magic=20240801, version=7, width="I")
        wide = self.run_job(self.write("job.yaml", harness.job_text(windows=2)), output="wide").result
        self.assertEqual(narrow["digest"], wide["digest"])


if __name__ == "__main__":
    harness.main()
