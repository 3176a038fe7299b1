"""A real `langchain-eft serve` process: how it starts, whom it refuses, how it ends."""

import json
import shutil
import signal
import time

import httpx
import pytest

from integration_tests.serve_process import PATIENCE, Stream, body, raw, server
from unit_tests.helpers import full
from unit_tests.tiny import build

pytestmark = pytest.mark.slow

KEY = "alice:alices-secret"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build(tmp_path_factory.mktemp("family")).folder


def refused(url):
    """What a new request is answered once the server drains."""
    deadline = time.monotonic() + PATIENCE
    while True:
        answer = httpx.post(f"{url}/v1/chat/completions", json=body(tokens=1), timeout=PATIENCE)
        if answer.status_code != 200:
            return answer
        assert time.monotonic() < deadline


# The end


@pytest.mark.parametrize("sent", [signal.SIGTERM, *full(signal.SIGINT)])
def test_a_signal_lets_running_answers_end_and_refuses_new_ones(folder, sent):
    with server("--drain-seconds", "60", folder=folder) as running:
        streams = [Stream(running.url).start(n=4, tokens=300) for _ in range(3)]
        running.wait_for(lambda: all(stream.chunks for stream in streams))
        running.process.send_signal(sent)
        running.wait_for(lambda: any(line.get("event") == "draining" for line in running.log))
        answer = refused(running.url)
        health = httpx.get(f"{running.url}/health")
        for stream in streams:
            stream.join()
            assert (stream.status, stream.done, stream.broken) == (200, True, False)
            reasons = [c["choices"][0]["finish_reason"] for c in stream.chunks if c["choices"]]
            assert [reason for reason in reasons if reason] == ["length"] * 4
        assert running.ended() == 0
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "draining")
    assert 1 <= int(answer.headers["retry-after"]) <= 61
    assert (health.status_code, health.json()) == (503, {"status": "draining"})


def test_answers_that_take_longer_than_the_drain_are_cut(folder):
    with server("--drain-seconds", "0.2", folder=folder) as running:
        streams = [Stream(running.url).start(n=4) for _ in range(4)]
        running.wait_for(lambda: all(stream.chunks for stream in streams))
        running.process.send_signal(signal.SIGTERM)
        assert running.ended() == 0
        assert not all(stream.join().done and stream.finish_reason for stream in streams)


def test_a_second_signal_ends_it_at_once(folder):
    with server("--drain-seconds", "600", folder=folder) as running:
        stream = Stream(running.url).start(n=16)
        running.wait_for(lambda: stream.chunks)
        running.process.send_signal(signal.SIGTERM)
        running.wait_for(lambda: any(line.get("event") == "draining" for line in running.log))
        running.process.send_signal(signal.SIGTERM)
        assert running.ended() == -signal.SIGTERM
        assert stream.join().broken


def test_a_signal_while_weights_are_loaded_ends_it(folder):
    with server(folder=folder, ready=False) as running:
        running.wait_for(lambda: any(line.get("event") == "loading" for line in running.log))
        running.process.send_signal(signal.SIGTERM)
        assert running.ended() in {-signal.SIGTERM, 0}  # 0 if they were loaded meanwhile


# The start


def test_a_port_in_use_is_one_readable_line(folder):
    with server(folder=folder, ready=False) as first:
        port = first.address[1]
        with pytest.raises(AssertionError, match=f"cannot listen on 127.0.0.1, port {port}") as e:  # noqa: SIM117
            with server("--port", port, folder=folder):
                pass
    assert "Traceback" not in str(e.value)


def test_weights_that_cannot_be_loaded_end_it_with_one_readable_line(folder, tmp_path):
    broken = shutil.copytree(folder, tmp_path / "broken")
    weights = broken / "base" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with server(folder=broken, ready=False) as running:
        assert running.ended() == 1
    assert "model.safetensors" in running.lines[-1]
    assert "Traceback" not in "\n".join(running.lines)


def test_it_takes_no_requests_until_the_weights_are_loaded(folder):
    with server(folder=folder, ready=False) as running:
        answers = []
        while not running.ready():
            answers.append(httpx.get(f"{running.url}/health").status_code)
        running.wait_for(lambda: httpx.get(f"{running.url}/health").status_code == 200)
    assert set(answers) <= {200, 503}
    assert answers[0] == 503


# Who gets in


@pytest.fixture(scope="module")
def guarded(folder):
    with server("--api-key", KEY, "--body-seconds", "2", folder=folder) as running:
        yield running


AUTHORIZED = {"authorization": "Bearer alices-secret"}


def head(*lines, key="alices-secret"):
    first = ["POST /v1/chat/completions HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {key}"]
    return "\r\n".join([*first, "Content-Type: application/json", *lines, "", ""]).encode("latin-1")


def status(answer):
    return int(answer.split()[1])


def served(running):
    """Whether the server still answers a plain request."""
    asked = httpx.post(
        f"{running.url}/v1/chat/completions", json=body(tokens=3), headers=AUTHORIZED, timeout=PATIENCE
    )
    return asked.json()["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize("key", [None, "wrong-secret", "alices-secre", "alices-secret"])
def test_only_the_right_key_gets_in(guarded, key):
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    answer = httpx.post(f"{guarded.url}/v1/chat/completions", json=body(tokens=1), headers=headers)
    assert answer.status_code == (200 if key == "alices-secret" else 401)
    assert httpx.get(f"{guarded.url}/metrics", headers=headers).status_code == answer.status_code


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_100_megabytes_is_refused(guarded, chunked):
    content = (bytes(2**20) for _ in range(100)) if chunked else bytes(100 * 2**20)
    answer = httpx.post(
        f"{guarded.url}/v1/chat/completions", content=content, headers=AUTHORIZED, timeout=PATIENCE
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
    assert served(guarded)


def test_a_slow_body_is_given_up_while_others_are_served(guarded):
    answer = raw(guarded.address, head("Content-Length: 1000"), b"{")
    assert status(answer) == 408
    assert b"slow_body" in answer
    assert served(guarded)


def test_what_follows_a_refused_body_is_no_request(guarded):
    smuggled = head("Content-Length: 100000000") + b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    answer = raw(guarded.address, smuggled)
    assert answer.count(b"HTTP/1.1") == 1
    assert status(answer) == 413


@pytest.mark.parametrize(
    "line",
    ["X-Request-Id: a\r\n Set-Cookie: stolen=1", "X-Request-Id: a\x0bSet-Cookie: stolen=1",
     "X-Request-Id: \x00", "X-Request-Id: a\rSet-Cookie: stolen=1",
     "X-Request-Id: a%0d%0aSet-Cookie: stolen=1"],
)  # fmt: skip
def test_headers_cannot_be_injected(guarded, line):
    content = json.dumps(body(tokens=1)).encode()
    answer = raw(
        guarded.address, head(line, "Connection: close", f"Content-Length: {len(content)}") + content
    )
    assert status(answer) in {200, 400}
    assert b"stolen" not in answer


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"host": "evil.example"}, "unknown_host"),
        ({"origin": "https://evil.example"}, "foreign_origin"),
        ({"origin": "null"}, "foreign_origin"),
    ],
)
def test_pages_of_others_are_refused_even_with_the_key(guarded, headers, code):
    answer = httpx.get(f"{guarded.url}/v1/models", headers={**AUTHORIZED, **headers})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, code)


def test_the_log_is_one_line_of_json_a_request_without_secrets_and_texts(guarded):
    said = "a-sentence-of-the-caller"
    asked = body(tokens=2) | {"messages": [{"role": "user", "content": said}]}
    answer = httpx.post(f"{guarded.url}/v1/chat/completions", json=asked, headers=AUTHORIZED)
    sought = answer.headers["x-request-id"]
    guarded.wait_for(lambda: any(line.get("request_id") == sought for line in guarded.log))
    (line,) = [line for line in guarded.log if line.get("request_id") == sought]
    assert (line["key"], line["status"], line["mixture"]) == ("alice", 200, {"one": 1.0})
    assert "alices-secret" not in "\n".join(guarded.lines)
    assert said not in "\n".join(guarded.lines)
