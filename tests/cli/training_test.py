"""What a job file can ask for, run: schedules, optimizers, modes, epochs, order of the data, evaluation."""
import math

import harness
from harness import CliTest, tokens_of, write_shard

T = harness.SEQUENCE_LENGTH


class TrainingTest(CliTest):

    def rates(self, windows, **schedule):
        """Learning rates of a run, as shares of the peak."""
        output = "out-" + "-".join(map(str, schedule.values()))
        job = self.write_job(windows=windows, optimizer={"learning_rate": 1.0}, batch={"sequences": 2},
                             schedule=dict({"warmup_windows": 2}, **schedule))
        self.run_job(job, output=output)
        return [line["learning_rate"] for line in self.windows(output)]

    def assert_close(self, found, expected):
        self.assertEqual(len(found), len(expected))
        for window, (a, b) in enumerate(zip(found, expected)):
            self.assertAlmostEqual(a, b, places=9, msg=f"window {window}: {found}")

    def test_schedules(self):
        warmup, ratio = [0.5, 1.0], 0.1
        self.assert_close(self.rates(6, name="constant"), warmup + [1.0] * 4)
        # From the peak, at the first window after warmup, to minimum_ratio, at the last one.
        down = [step / 3 for step in range(4)]
        self.assert_close(self.rates(6, name="linear"), warmup + [1 - (1 - ratio) * x for x in down])
        self.assert_close(self.rates(6, name="cosine"),
                          warmup + [ratio + (1 - ratio) * 0.5 * (1 + math.cos(math.pi * x)) for x in down])
        wsd = self.rates(7, name="wsd", decay_windows=2)
        self.assertEqual(wsd[:5], warmup + [1.0] * 3)
        self.assertAlmostEqual(wsd[-1], ratio)
        self.assertTrue(ratio < wsd[5] < 1, wsd)

    def test_batch_rule(self):
        self.run_job(self.write_job(windows=1, schedule={"warmup_windows": 0},
                                    optimizer={"batch_rule": "sqrt", "base_sequences": 2}))
        self.assertAlmostEqual(self.windows()[0]["learning_rate"], 0.02)

    def test_sgd_learns_and_does_not_depend_on_workers(self):
        job = self.write_job(windows=12, optimizer={"name": "sgd", "momentum": 0.9, "learning_rate": 0.2})
        first = self.run_job(job, output="one").result
        second = self.run_job(job, output="three", workers=3).result
        self.assertEqual(first["digest"], second["digest"])
        windows = self.windows("one")
        self.assertLess(windows[-1]["loss"], windows[0]["loss"])

    def test_llama_bits_do_not_depend_on_workers(self):
        job = self.write_job(windows=3, model={"architecture": "llama", "heads": 4, "kv_heads": 2})
        self.assertEqual(self.run_job(job, output="one").result["digest"],
                         self.run_job(job, output="three", workers=3, threads=2).result["digest"])

    def test_dropout_bits_do_not_depend_on_workers(self):
        job = self.write_job(windows=3, model={"dropout": 0.2})
        digest = self.run_job(job, output="one").result["digest"]
        self.assertEqual(digest, self.run_job(job, output="two", workers=2).result["digest"])
        self.assertNotEqual(digest, self.run_job(self.write_job(windows=3), output="none").result["digest"])

    def test_fast_accumulation_runs_and_says_that_it_is_not_reproducible(self):
        job = self.write_job(accumulation={"mode": "fast"})
        result = self.run_job(job, workers=2).result
        self.assertEqual((result["state"], result["reproducible"]), ("succeeded", False))
        exact = self.run_job(self.write_job(), output="exact").result
        self.assertAlmostEqual(result["loss"], exact["loss"], delta=1e-3)

    def test_epochs(self):
        write_shard(self.path("train.bin"), tokens_of(20 * T + 1))  # 20 sequences: 2.5 windows of 8
        result = self.run_job(self.write_job(windows=None, epochs=3)).result
        self.assertEqual(result["window"], math.ceil(3 * 20 / 8))

    def test_sequential_sequence_i_is_tokens_from_i_times_t_on(self):
        # Two shards whose border lies inside a sequence, and a tail too short for one more.
        tokens = tokens_of(6 * T + 5, seed=3)
        write_shard(self.path("a.bin"), tokens[:2 * T + 7])
        write_shard(self.path("b.bin"), tokens[2 * T + 7:])
        # With the parameters held still, a window's loss tells its sequences alone.
        still = {"batch": {"sequences": 2, "micro_batch": 1}, "optimizer": {"learning_rate": 1e-30, "weight_decay": 0},
                 "schedule": {"warmup_windows": 0}}
        self.run_job(self.write_job("whole.yaml", windows=4,
                                    data={"train": ["a.bin", "b.bin"], "order": "sequential"}, **still), output="whole")
        losses = [line["loss"] for line in self.windows("whole")]
        for window in range(3):
            name = f"window-{window}"
            write_shard(self.path(name + ".bin"), tokens[2 * window * T:(2 * window + 2) * T + 1])
            self.run_job(self.write_job(name + ".yaml", windows=1,
                                        data={"train": [name + ".bin"], "order": "sequential"}, **still), output=name)
            self.assertEqual(self.windows(name)[0]["loss"], losses[window])
        self.assertEqual(losses[3], losses[0], "the second epoch begins where the first did")
        self.assertEqual(len(set(losses[:3])), 3)

    def test_shuffled_epoch_has_each_sequence_once(self):
        # With the parameters held still, an epoch's mean loss is the same in any order.
        write_shard(self.path("train.bin"), tokens_of(16 * T + 1))
        losses = {}
        for order in ("shuffled", "sequential"):
            self.run_job(self.write_job(windows=4, data={"order": order},
                                        optimizer={"learning_rate": 1e-30, "weight_decay": 0}), output=order)
            losses[order] = [line["loss"] for line in self.windows(order)]
        whole = sum(losses["sequential"][:2]) / 2
        for epoch in (losses["shuffled"][:2], losses["shuffled"][2:]):
            self.assertAlmostEqual(sum(epoch) / 2, whole, places=6)
        self.assertNotEqual(losses["shuffled"][:2], losses["shuffled"][2:], "each epoch has its own order")

    def test_evaluation_does_not_depend_on_its_split(self):
        write_shard(self.path("validation.bin"), tokens_of(700, seed=5))
        job = self.write_job(data={"validation": ["validation.bin"]}, evaluation={"every_windows": 2, "sequences": 24})
        found = [self.run_job(job, output=f"out-{workers}", workers=workers).result["validation_loss"]
                 for workers in (1, 3)]
        self.assertEqual(found[0], found[1])

    def test_clip(self):
        self.run_job(self.write_job(clip_norm=0.01))
        for line in self.windows():
            self.assertAlmostEqual(line["clip_coefficient"], min(1, 0.01 / (line["gradient_norm"] + 1e-6)), places=6)


if __name__ == "__main__":
    harness.main()
