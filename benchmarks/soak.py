"""Many requests to a running service, and whether its memory stays where it is.

    python benchmarks/soak.py http://127.0.0.1:8000 --pid PID --requests 10000

Requests are of all formats; some are wrong, and some clients leave half-way. Memory is that of the
process PID and its children; the slope is fitted from the point on where a fifth is done.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

TEXTS = ("Yes.", "It was late.", "Nobody spoke, and the rain fell.")
FORMATS = ("pcm", "wav", "mp3", "opus", "aac", "flac")
LOOKS = 200  # at memory
WARM_SHARE = 0.2
PAGE = 4096


def resident(pid: int) -> int:
    """Bytes of a process and its children."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return pages * PAGE + sum(resident(int(child)) for child in children)


def ask(place: str, number: int) -> str:
    """One request, of a kind that its number draws; what became of it."""
    draw = random.Random(number)
    body = {
        "input": draw.choice(TEXTS),
        "response_format": draw.choice(FORMATS),
        "stream_format": draw.choice(("audio", "audio", "sse")),
        "stream": draw.random() < 0.8,
        "speed": draw.choice((1, 1, 1, 1.5)),
        "voice": draw.choice(("alloy", "echo", "none", "nobody")),
    }
    connection = http.client.HTTPConnection(place, timeout=300)
    try:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/v1/audio/speech", json.dumps(body), headers)
        answer = connection.getresponse()
        if answer.status == 200 and draw.random() < 0.2:
            answer.read(1 + draw.randrange(5000))
            return "left"
        answer.read()
        return str(answer.status)
    except http.client.IncompleteRead:
        return "cut"
    finally:
        connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--pid", type=int, required=True)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--at-once", type=int, default=8)
    given = parser.parse_args()
    place = urlsplit(given.url).netloc
    done, seen, lock = [0], [(0, resident(given.pid))], threading.Lock()
    every = max(1, given.requests // LOOKS)

    def work(number: int) -> str:
        outcome = ask(place, number)
        with lock:
            done[0] += 1
            if done[0] % every == 0:
                seen.append((done[0], resident(given.pid)))
        return outcome

    with ThreadPoolExecutor(given.at_once) as pool:
        outcomes = Counter(pool.map(work, range(given.requests)))
    counts, memory = np.array(seen, dtype=float).T
    late = counts >= WARM_SHARE * given.requests
    slope = np.polyfit(counts[late], memory[late], 1)[0]
    report = {
        "requests": given.requests,
        "outcomes": dict(outcomes),
        "mb_at_first": memory[0] / 1e6,
        "mb_warm": memory[late][0] / 1e6,
        "mb_at_last": memory[-1] / 1e6,
        "kb_per_request": slope / 1e3,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
