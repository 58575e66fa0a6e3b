#!/usr/bin/env python3
"""Makes vocab.json, merges.txt and encodings.json: a small byte-level BPE and what Hugging Face's implementation
(pip install tokenizers) makes of texts that are hard to split. Run in this folder; tests read the three files."""
import json

from tokenizers import ByteLevelBPETokenizer

REPOSITORY_TEXTS = ["../../../docs/numerics.md", "../../../docs/hacking.md"]
TEXTS = [
    "", " ", "  ", "\n", "\n\n  \n", "a", "Hello world", "  Hello  world  ", "it's we'll they've I'd he'S 's",
    "int main(int argc, char** argv) {\n  return argc > 1 ? 0 : 1;  // done\n}\n", "x\t\ty \t z", "1234567 8.9e-10",
    "na\u00efve caf\u00e9 \u00dcberg\u00f6\u00dfe", "\u65e5\u672c\u8a9e\u306e\u6587\u7ae0\u3002", "\U0001f600 \U0001f468\u200d\U0001f469",
    "a\u00a0b\u2003c\u3000d\u0085e\u180ef", "\u0661\u0662\u0663 \u2167 \u00bd", "e\u0301 combining", "<|endoftext|>",
    "....!!!!????   ....", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "the coordinator hands each worker a share of every accumulation window\r\n" * 2, "\x00\x01\x7f\x1c\x1d",
]


def main():
    trained = ByteLevelBPETokenizer()
    trained.train(REPOSITORY_TEXTS, vocab_size=700, min_frequency=2, show_progress=False)
    trained.save_model(".")
    # Loaded again without the special token, so that its text is ordinary text, as the project has it.
    loaded = ByteLevelBPETokenizer("vocab.json", "merges.txt")
    encodings = [{"text": text, "ids": loaded.encode(text).ids} for text in TEXTS]
    vocabulary = json.load(open("vocab.json", encoding="utf-8"))
    vocabulary["<|endoftext|>"] = len(vocabulary)
    json.dump(vocabulary, open("vocab.json", "w", encoding="utf-8"), ensure_ascii=False, separators=(",", ":"))
    json.dump(encodings, open("encodings.json", "w", encoding="utf-8"), indent=0)


if __name__ == "__main__":
    main()
