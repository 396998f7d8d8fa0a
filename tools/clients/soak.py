"""Keeps a `trilut serve` busy with many clients, some of which are rude, and checks every answer.

    python soak.py target/release/trilut --clients 64 --minutes 10

Answers are compared with what `trilut run` says offline. Clients that leave in the middle, wrong JSON and
bodies that are too large are mixed in. At the end nothing may be lost, no answer may be wrong, the memory of
the server may not have grown by more than 2 %, and the server must end in order. Memory is compared between
the first and the last quarter of the time that is left after a warm-up, in which caches and buffers come to
their size. Needs nothing but Python.
"""

import argparse
import http.client
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

STORIES = ["fox", "owl", "bear", "cat", "frog", "duck", "dog", "hen"]


def offline(binary, environment, request):
    """The text that the same prompt has without a server."""
    prompt = request["prompt"]
    command = [binary, "run", "-p", prompt, "-n", str(request["max_tokens"]),
               "--temp", str(request["temperature"]), "--seed", str(request.get("seed", 0))]
    output = subprocess.run(command, env=environment, capture_output=True, check=True).stdout.decode()
    assert output.startswith(prompt) and output.endswith("\n"), output
    return output[len(prompt):-1]


def requests():
    """Different prompts and ways to choose tokens."""
    for seed, animal in enumerate(STORIES):
        prompt = f"Once upon a time there was a {animal}"
        yield {"prompt": prompt, "max_tokens": 24 + 8 * seed, "temperature": 0}
        yield {"prompt": prompt + ". " * (seed + 1), "max_tokens": 40, "temperature": 1.1, "seed": seed}
    long = "The fox and the owl went into the wood to look for the bear. " * 12
    yield {"prompt": long, "max_tokens": 16, "temperature": 0}
    yield {"prompt": long + "They", "max_tokens": 30, "temperature": 0.8, "seed": 77}


class Soak:
    def __init__(self, address, cases):
        self.address, self.cases = address, cases
        self.lock = threading.Lock()
        self.counts, self.wrong, self.lost = {}, [], []
        self.until = 0.0

    def count(self, what):
        with self.lock:
            self.counts[what] = self.counts.get(what, 0) + 1

    def post(self, body):
        connection = http.client.HTTPConnection(*self.address, timeout=120)
        headers = {"content-type": "application/json"}
        connection.request("POST", "/v1/completions", body, headers)
        return connection, connection.getresponse()

    def ask(self, random):
        request, text = random.choice(self.cases)
        stream = random.random() < 0.5
        connection, response = self.post(json.dumps({**request, "stream": stream}))
        if response.status == 429:
            assert int(response.headers["retry-after"]) >= 1
            self.count("refused, queue full")
            connection.close()
            time.sleep(random.random() / 4)
            return
        assert response.status == 200, (response.status, response.read())
        if stream and random.random() < 0.2:
            response.read(random.randrange(1, 400))
            self.count("left in the middle")
            connection.close()
            return
        body = response.read().decode()
        connection.close()
        if stream:
            lines = [line[6:] for line in body.splitlines() if line.startswith("data: ")]
            assert lines[-1] == "[DONE]", body
            got = "".join(json.loads(line)["choices"][0]["text"] for line in lines[:-1])
        else:
            got = json.loads(body)["choices"][0]["text"]
        if got != text:
            with self.lock:
                self.wrong.append((request, text, got))
        self.count("answered")

    def be_rude(self, random):
        body, status = random.choice([
            (b"{", 400), (b"\xff\xfe", 400), (b"[]", 400), (b'{"prompt": 5}', 400),
            (b'{"prompt": "x", "temperature": -1}', 400), (b'{"prompt": "x", "model": "none"}', 404),
            (json.dumps({"prompt": "fox " * 3000}).encode(), 400), (b"x" * (5 << 20), 413),
        ])
        connection, response = self.post(body)
        answer = json.loads(response.read())
        connection.close()
        assert response.status == status and "error" in answer, (body[:60], response.status)
        self.count("malformed or oversized")

    def client(self, seed):
        chance = random.Random(seed)
        while time.time() < self.until:
            try:
                self.be_rude(chance) if chance.random() < 0.1 else self.ask(chance)
            except Exception as error:  # whatever it is, an answer was lost
                with self.lock:
                    self.lost.append(repr(error))


def resident(process):
    """KiB of memory that the server holds for itself."""
    with open(f"/proc/{process}/status") as status:
        return int(re.search(r"RssAnon:\s+(\d+)", status.read()).group(1))


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("binary")
    arguments.add_argument("--clients", type=int, default=64)
    arguments.add_argument("--minutes", type=float, default=10)
    arguments.add_argument("--warm-up", type=float, default=5, metavar="MINUTES", help="part of --minutes")
    arguments.add_argument("--seed", type=int, default=1)
    chosen, more = arguments.parse_known_args()
    if not 0 <= chosen.warm_up < chosen.minutes:
        arguments.error("--warm-up must be shorter than --minutes")
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "XDG_CACHE_HOME": cache}
        cases = [(request, offline(chosen.binary, environment, request)) for request in requests()]
        command = [chosen.binary, "serve", "--port", "0", *more]
        server = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        for line in server.stderr:
            found = re.match(r"serving at http://([^:]+):(\d+)", line)
            if found:
                break
        soak = Soak((found.group(1), int(found.group(2))), cases)
        seconds = chosen.minutes * 60
        began = time.time()
        soak.until = began + seconds
        threads = [threading.Thread(target=soak.client, args=(chosen.seed * 1000 + i,))
                   for i in range(chosen.clients)]
        for thread in threads:
            thread.start()
        memory = []
        while time.time() < soak.until:
            time.sleep(min(1.0, seconds / 40))
            memory.append((time.time() - began, resident(server.pid)))
        for thread in threads:
            thread.join()
        server.send_signal(signal.SIGTERM)
        ended = server.wait(timeout=60)
    warm = chosen.warm_up * 60
    quarter = (seconds - warm) / 4
    early = statistics.median(kib for at, kib in memory if warm <= at <= warm + quarter)
    late = statistics.median(kib for at, kib in memory if at >= seconds - quarter)
    drift = 100 * (late - early) / early
    for what, count in sorted(soak.counts.items()):
        print(f"{count:8} {what}")
    print(f"{len(soak.wrong):8} wrong\n{len(soak.lost):8} lost")
    curve = [kib / 1024 for _, kib in memory[::max(1, len(memory) // 20)]]
    print("memory, MiB: " + " ".join(f"{mib:.1f}" for mib in curve))
    print(f"after {warm:.0f} s: {early / 1024:.1f} -> {late / 1024:.1f} MiB ({drift:+.2f} %), exit code {ended}")
    for request, text, got in soak.wrong[:3]:
        print(f"wrong: {request}\n  offline: {text!r}\n  served:  {got!r}", file=sys.stderr)
    for error in soak.lost[:3]:
        print(f"lost: {error}", file=sys.stderr)
    sys.exit(3 if soak.wrong or soak.lost or drift > 2 or ended != 0 else 0)


if __name__ == "__main__":
    main()
