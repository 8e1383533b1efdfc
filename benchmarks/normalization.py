"""Is text as people write it spoken as well as the same text written out?

`nano` speaks 40 sentences with numbers, prices, dates, Markdown and emoji, each through
normalization and written out by hand, with the same voice and seed, and an offline recogniser hears
both. Without normalization the same sentences show what it is worth.

    python benchmarks/normalization.py --seeds 2 --out benchmarks/results/normalization.json
"""

from __future__ import annotations

import argparse
from pathlib import Path

import quaver
from quaver.bench.machine import write_result
from quaver.core.errors import InputError
from quaver.quality.metrics.wer import WordErrorRate, word_errors
from quaver.synthesizer import SpeechSynthesizer
from quaver.text.normalization import normalize

# (as it is written, written out by hand)
SENTENCES = (
    ("It costs $5.99 today.", "It costs five dollars and ninety-nine cents today."),
    ("Take 50% off.", "Take fifty percent off."),
    ("We sold 1,250 tickets.", "We sold one thousand two hundred fifty tickets."),
    ("The war ended in 1945.", "The war ended in nineteen forty-five."),
    ("Meet me at 3:30 pm.", "Meet me at three thirty P M."),
    ("**Stop** right there.", "Stop right there."),
    ("Great job! 🎉", "Great job!"),
    ("She won the 1st prize.", "She won the first prize."),
    ("It is 72°F outside.", "It is seventy-two degrees Fahrenheit outside."),
    ("He ran 5 km this morning.", "He ran five kilometers this morning."),
    ("Dr. Smith is here.", "Doctor Smith is here."),
    ("THIS IS VERY LOUD.", "This is very loud."),
    ("The meeting is on March 5, 2024.", "The meeting is on March fifth, twenty twenty-four."),
    ("Add 2 + 3 now.", "Add two plus three now."),
    ("Bring 1/2 of the bread.", "Bring one half of the bread."),
    ("We need 3 of them.", "We need three of them."),
    ("The temperature fell to -5 degrees.", "The temperature fell to minus five degrees."),
    ("I paid £20 for the book.", "I paid twenty pounds for the book."),
    ("Wait for 10-15 minutes.", "Wait for ten to fifteen minutes."),
    ("*Maybe* we should go home.", "Maybe we should go home."),
    ("The house has 4 rooms & a garden.", "The house has four rooms and a garden."),
    ("Read `the manual` first.", "Read the manual first."),
    ("Her flat is on the 22nd floor.", "Her flat is on the twenty-second floor."),
    ("The song is from the 1990s.", "The song is from the nineteen nineties."),
    ("It weighs 12 kg.", "It weighs twelve kilograms."),
    ("Turn left after 200 m.", "Turn left after two hundred meters."),
    ("They scored 3.5 points.", "They scored three point five points."),
    ("See [the garden](https://example.com) today.", "See the garden today."),
    ("I love you ❤️ so much.", "I love you so much."),
    ("A well\u2011known story.", "A well-known story."),
    ("The train leaves at 9:00.", "The train leaves at nine o'clock."),
    ("He is 6 ft tall.", "He is six feet tall."),
    ("We have $2.5 million.", "We have two point five million dollars."),
    ("Mr. Jones lives on Main St.", "Mister Jones lives on Main Street."),
    ("Use apples, pears, etc.", "Use apples, pears, et cetera."),
    ("# Today\n\nThe sun is warm.", "Today.\n\nThe sun is warm."),
    ("- milk\n- bread", "milk.\nbread."),
    ("There were 100,000 people.", "There were one hundred thousand people."),
    ("It was ~~bad~~ good.", "It was bad good."),
    ("Only 7 days are left… 😢", "Only seven days are left..."),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--voice", default="slt")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path)
    wanted = parser.parse_args()
    voice, recogniser = quaver.load("nano"), WordErrorRate()
    ways = {
        "normalized": ("full", 0),
        "written out": ("off", 1),
        "as it is written": ("off", 0),
    }
    rows = {
        name: _spoken(voice, recogniser, mode, column, wanted.voice, wanted.seeds)
        for name, (mode, column) in ways.items()
    }
    equal = sum(normalize(text) == out for text, out in SENTENCES)
    for name, row in rows.items():
        print(
            f"{name:>17}: {row['errors']} of {row['words']} words wrong, "
            f"{100 * row['errors'] / max(row['words'], 1):.1f} %, {row['refused']} refused"
        )
    print(f"{equal} of {len(SENTENCES)} are written out by normalization as by hand")
    if wanted.out is not None:
        about = {"voice": wanted.voice, "seeds": wanted.seeds, "sentences": len(SENTENCES)}
        write_result(wanted.out, {**about, "equal_texts": equal, "rows": rows})


def _spoken(
    voice: SpeechSynthesizer,
    recogniser: WordErrorRate,
    mode: str,
    column: int,
    speaker: str,
    seeds: int,
) -> dict[str, int]:
    """Words wrong, by the words of the text that is written out."""
    errors = words = refused = 0
    for seed in range(seeds):
        for pair in SENTENCES:
            try:
                audio = voice.generate(pair[column], voice=speaker, seed=seed, normalize=mode)
            except InputError:
                refused += 1
                continue
            heard = recogniser.transcribe(audio.samples, audio.sample_rate)
            wrong, count = word_errors(pair[1], heard)
            errors, words = errors + wrong, words + count
    return {"errors": errors, "words": words, "refused": refused}


if __name__ == "__main__":
    main()
