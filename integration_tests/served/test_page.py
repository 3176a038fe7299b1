"""The page of `langchain-eft serve` in a real Chromium, against a real server with the bundled weights.

Without a browser these tests are skipped, unless `LANGCHAIN_EFT_REQUIRE_BROWSER` is set: then they fail.
`LANGCHAIN_EFT_BROWSER` is the path of a browser; left out, `chromium` is looked for. With
`LANGCHAIN_EFT_SCREENSHOTS=FOLDER`, the pictures of the documentation are written to that folder.
"""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlencode

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

from langchain_eft import EFTChatModel
from unit_tests.helpers import wait_until

pytestmark = pytest.mark.slow

BROWSER = os.environ.get("LANGCHAIN_EFT_BROWSER") or shutil.which("chromium")
SCREENSHOTS = os.environ.get("LANGCHAIN_EFT_SCREENSHOTS")
expect.set_options(timeout=300_000)  # milliseconds: a machine can be busy
WHALES = {"prompt": "Tell me about whales.", "mix": "pirate=1,concise=1", "max_tokens": 24}
MARKUP = "<script>document.title = 'hacked'</script><img src=x onerror=\"document.title = 'hacked'\">"
DONE = ".answer[data-status=done]"


@pytest.fixture(scope="module")
def url(open_server):
    return open_server.url


@pytest.fixture(scope="module")
def chromium():
    if BROWSER is None:
        reason = "no Chromium: install Debian's chromium, or set LANGCHAIN_EFT_BROWSER"
        (pytest.fail if os.environ.get("LANGCHAIN_EFT_REQUIRE_BROWSER") else pytest.skip)(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def context(chromium):
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    context.set_default_timeout(300_000)
    yield context
    context.close()


@pytest.fixture
def page(context):
    """A tab. Its console has to stay clean: no error, and so no violation of the security policy."""
    page, complaints = context.new_page(), []
    page.refused = False  # a test that is about refusals sets it, because the console reports each of them
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    expected = "Failed to load resource" if page.refused else "nothing"
    assert [text for text in complaints if expected not in text] == []


def visit(page, url, **state):
    """Open the page with a state in its link, once the server has been asked what it serves."""
    page.goto(f"{url}/#{urlencode(state)}" if state else url)
    expect(page.locator(".behavior")).to_have_count(4)


def run(page, columns=3):
    page.get_by_role("button", name="Run").click()
    expect(page.locator(f".column:visible {DONE}")).to_have_count(columns)


def column(page, kind):
    return page.locator(f"[data-kind={kind}]")


def tokens(place):
    """The texts of an answer's tokens, by which a reader tells them apart."""
    return place.locator(".tokens").first.locator(".token").all_inner_texts()


def text(place):
    return place.locator(".tokens").first.text_content()


def number(page, behavior):
    return page.get_by_label(f"Weight of {behavior} as a number")


def sent(page):
    """The bodies of completions that the page asks for from now on."""
    bodies = []
    page.on("request", lambda request: bodies.append(request.post_data_json) if request.post_data else None)
    return bodies


def overlap(page, count):
    """Whether all of the last completions had begun before any of them ended."""
    entries = page.evaluate(
        "performance.getEntriesByType('resource').filter(e => e.name.endsWith('/completions'))"
        ".map(e => [e.startTime, e.responseEnd])"
    )[-count:]
    return len(entries) == count and max(s for s, _ in entries) < min(e for _, e in entries)


def text_before(token):
    """What an answer says before one of its tokens."""
    script = "token => { let text = ''; for (const node of token.parentElement.childNodes) {"
    return token.evaluate(script + " if (node === token) return text; text += node.textContent; } }")


def canned(content):
    """A streamed completion of one token with a trace, whose every text is `content`."""
    change = {
        "total_variation": 1.0,
        "up": {"token": content, "change": 1.0},
        "down": {"token": content, "change": -1.0},
    }
    entry = {
        "id": 5,
        "token": content,
        "text": content,
        "logprob": -0.1,
        "base": -2.0,
        "small": -0.2,
        "cut": 0,
    }
    part = {**change, "weight": 1.0, "tuned": -0.1, "reference": -2.0, "contribution": 1.9}
    trace = {**entry, "from_base": change, "from_small": change, "behaviors": {content: part}}
    logprob = {"token": content, "token_id": 5, "logprob": -0.1}
    logprobs = {
        "content": [{**logprob, "top_logprobs": [{**logprob, "token": f"{content}!", "token_id": 6}]}]
    }
    call = {"index": 0, "id": content, "function": {"name": content, "arguments": content}}
    choice = {"index": 0, "delta": {"content": content, "tool_calls": [call]}, "finish_reason": "tool_calls"}
    chunk = {"choices": [{**choice, "trace": [trace], "logprobs": logprobs}]}
    return f"data: {json.dumps(chunk)}\r\n\r\ndata: [DONE]\r\n\r\n"


def answer_with(page, body, status=200):
    kind = "text/event-stream" if status == 200 else "application/json"
    page.route(
        "**/v1/chat/completions", lambda route: route.fulfill(status=status, body=body, content_type=kind)
    )


def test_a_visitor_finds_an_example_and_compares_three_answers(page, url):
    visit(page, url)
    assert page.get_by_label("Prompt", exact=True).input_value() == "Explain what a black hole is."
    assert page.locator("#formula").inner_text() == "base + 1 pirate + 0.5 concise"
    page.get_by_label("Longest answer").evaluate("field => field.closest('details').open = true")
    page.get_by_label("Longest answer").fill("32")
    run(page)
    answers = {kind: text(column(page, kind)) for kind in ("base", "tuned", "mixture")}
    assert len(set(answers.values())) == 3
    assert "black hole" in answers["base"]
    assert re.search(r"\b(be|Ahoy|Arr|o')", answers["mixture"])
    assert overlap(page, 3), "the columns did not decode side by side"


def test_columns_can_be_left_out(page, url):
    visit(page, url, **WHALES)
    page.get_by_role("checkbox", name="base alone").uncheck()
    page.get_by_role("checkbox", name="tuned alone").uncheck()
    run(page, columns=1)
    expect(column(page, "base")).to_be_hidden()
    expect(column(page, "mixture").locator(".token").first).to_be_visible()


def test_a_slider_sets_the_weight_of_a_request(page, url):
    visit(page, url, **WHALES, base="no", tuned="no")
    slider = page.get_by_role("slider", name="pirate")
    slider.focus()
    for _ in range(6):
        slider.press("ArrowLeft")
    expect(number(page, "pirate")).to_have_value("0.7")
    assert page.locator("#formula").inner_text() == "base + 0.7 pirate + 1 concise"
    number(page, "concise").fill("0.25")
    expect(page.get_by_role("slider", name="concise")).to_have_value("0.25")
    bodies = sent(page)
    run(page, columns=1)
    assert bodies[-1]["mixture"] == {"pirate": 0.7, "concise": 0.25}


def test_a_token_explains_itself_to_pointer_and_keyboard(page, url):
    visit(page, url, **WHALES, base="no", tuned="no")
    run(page, columns=1)
    card = page.get_by_role("group", name="Why this word")
    column(page, "mixture").locator(".token").nth(3).hover()
    expect(card).to_be_visible()
    for row in ("mixture, p", "base alone, L", "small models", "1 pirate", "1 concise"):
        expect(card.get_by_role("rowheader", name=row)).to_be_visible()
    expect(card.locator(".alternative")).to_have_count(5)
    page.mouse.move(5, 5)
    expect(card).to_be_hidden()

    first = column(page, "mixture").locator(".token").first
    first.focus()
    page.keyboard.press("ArrowRight")
    expect(column(page, "mixture").locator(".token").nth(1)).to_be_focused()
    expect(card).to_be_visible()
    page.keyboard.press("Enter")
    expect(card.locator("button:enabled").first).to_be_focused()
    page.keyboard.press("Escape")
    expect(column(page, "mixture").locator(".token").nth(1)).to_be_focused()
    page.keyboard.press("Escape")
    expect(card).to_be_hidden()


def test_an_alternative_forks_the_answer(page, url):
    visit(page, url, **WHALES, base="no", tuned="no")
    run(page, columns=1)
    answer = column(page, "mixture")
    before, beginning = tokens(answer), text_before(answer.locator(".token").nth(4)).rstrip()
    answer.locator(".token").nth(4).hover()
    other = page.locator(".card .alternative:enabled").first
    chosen = other.locator("code").inner_text().replace("␣", " ").replace("↵", "\n")
    bodies = sent(page)
    other.click()
    fork = page.locator(".fork")
    expect(fork.locator(DONE)).to_have_count(1)
    after = tokens(fork)
    assert len(bodies[-1]["answer_prefix"]) == 5
    assert after[:4] == before[:4]
    assert after[4] == chosen.strip() != before[4]
    assert len(after) > 5
    # What is read aloud is the text as the server sent it.
    expect(page.locator("#status")).to_contain_text(f"tokens. {beginning}{chosen}")
    page.get_by_label("Remove this fork").click()
    expect(fork).to_have_count(0)


def test_a_sweep_decodes_one_behavior_at_six_weights(page, url):
    visit(page, url, **{**WHALES, "mix": "pirate=1", "max_tokens": 12})
    bodies = sent(page)
    page.get_by_role("button", name="Sweep").click()
    expect(page.locator(f"#strip {DONE}")).to_have_count(6)
    assert [body["mixture"]["pirate"] for body in bodies if body] == [0, 0.25, 0.5, 0.75, 1, 1.5]
    assert overlap(page, 6), "the answers did not decode together"
    steps = page.locator(".step")
    assert text(steps.first) != text(steps.nth(4))
    steps.nth(2).get_by_role("button", name="Use this weight").click()
    expect(number(page, "pirate")).to_have_value("0.5")


def test_stop_frees_the_rows(page, url):
    visit(page, url, prompt="Tell me a very long story.", mix="none", max_tokens=2000, tuned="no")
    page.get_by_role("button", name="Run").click()
    expect(column(page, "base").locator(".token").nth(3)).to_be_visible()
    assert running(url) > 0
    page.get_by_role("button", name="Stop").click()
    wait_until(lambda: running(url) == 0)
    expect(column(page, "base").locator(".facts")).to_contain_text("stopped")
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()


def running(url):
    metrics = httpx.get(f"{url}/metrics", timeout=300).text
    return float(re.search(r"^eft:num_requests_running (\S+)", metrics, re.MULTILINE)[1])


def exported(page, name):
    page.get_by_role("button", name=name, exact=True).click()
    written = page.locator("dialog pre").inner_text()
    page.get_by_role("button", name="Close").click()
    return written


def test_what_is_copied_gives_the_same_answer(page, url):
    prompt = 'It\'s "quoted": what is the capital of Kenya?'
    visit(page, url, prompt=prompt, mix="pirate=0.5", max_tokens=16, base="no", tuned="no")
    run(page, columns=1)
    shown = text(column(page, "mixture")).split("⟨")[0]
    python = subprocess.run(  # noqa: S603
        [sys.executable, "-c", exported(page, "Python")],
        capture_output=True,
        text=True,
    )
    assert python.stdout.strip() == shown.strip(), python.stderr
    if shutil.which("curl"):
        command = ["bash", "-c", exported(page, "curl")]
        curl = subprocess.run(command, capture_output=True, text=True)  # noqa: S603
        assert json.loads(curl.stdout)["choices"][0]["message"]["content"].strip() == shown.strip()
    llm = EFTChatModel(**json.loads(exported(page, "Preset")))
    assert llm.active_mixture.as_json() == {"pirate": 0.5}
    assert exported(page, "Model name").strip() == "smol:pirate=0.5"
    assert exported(page, "Server file").splitlines() == ["[mixtures.my-mixture]", '"pirate" = 0.5']


def test_the_copy_button_fills_the_clipboard(page, url):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=url)
    visit(page, url, **WHALES)
    page.get_by_role("button", name="Model name").click()
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_text("Copied.")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()").strip() == "smol:pirate=1,concise=1"


def test_a_link_restores_the_whole_state(page, context, url):
    visit(page, url)
    page.get_by_label("Prompt", exact=True).fill("Was it “ä” & 100 %?")
    number(page, "pirate").fill("0.35")
    page.get_by_text("More", exact=True).click()
    page.get_by_label("Strength of the base").fill("0.8")
    page.get_by_label("Seed").fill("7")
    page.get_by_role("checkbox", name="tuned alone").uncheck()
    page.get_by_text("System message and tools").click()
    page.get_by_label("System message", exact=True).fill("Be kind.")
    page.get_by_role("button", name="Insert an example").click()
    link = exported(page, "Link").strip()
    other = context.new_page()
    other.goto(link)
    expect(other.locator(".behavior")).to_have_count(4)
    expect(other.get_by_label("Prompt", exact=True)).to_have_value("Was it “ä” & 100 %?")
    expect(number(other, "pirate")).to_have_value("0.35")
    expect(number(other, "concise")).to_have_value("0.5")
    expect(other.get_by_label("Strength of the base")).to_have_value("0.8")
    expect(other.get_by_label("Seed")).to_have_value("7")
    expect(other.get_by_role("checkbox", name="tuned alone")).not_to_be_checked()
    expect(other.get_by_label("System message", exact=True)).to_have_value("Be kind.")
    assert "get_weather" in other.get_by_label("Tools, as JSON").input_value()
    expect(column(other, "tuned")).to_be_hidden()
    wait_until(lambda: page.url == link)  # the address bar has the same link


@pytest.mark.parametrize(
    ("label", "value", "param"),
    [
        ("Weight of pirate as a number", "-1", "mixture.pirate"),
        ("Temperature", "-1", "temperature"),
        ("Truncation", "7", "upscale_top_p"),
        ("Longest answer", "1000000", "max_tokens"),
    ],
)
def test_what_the_server_refuses_is_shown_at_its_control(page, url, label, value, param):
    page.refused = True
    visit(page, url, **WHALES, base="no", tuned="no")
    page.get_by_text("More", exact=True).click()
    page.get_by_label(label).fill(value)
    page.get_by_role("button", name="Run").click()
    problem = page.locator(f"[data-param='{param}'] .problem")
    expect(problem).to_be_visible()
    expect(page.get_by_label(label)).to_have_attribute("aria-invalid", "true")
    expect(column(page, "mixture").locator(".problem")).to_have_text(problem.inner_text())
    page.get_by_label(label).fill("1")
    run(page, columns=1)
    expect(problem).to_have_count(0)


def test_sliders_have_the_ranges_of_the_callers_policy(page, url):
    page.refused = True
    models = httpx.get(f"{url}/v1/models").json()
    for model in models["data"]:
        ranges = {"harmless": (0.5, 1), "pirate": (0, 1.5)}
        model["eft"]["behaviors"] = [
            {"name": name, "min": low, "max": high, "default": low} for name, (low, high) in ranges.items()
        ]
    page.route("**/v1/models", lambda route: route.fulfill(json=models))
    error = {"message": "The mixture gives 'harmless' the weight 0, and this server allows 0.5 to 1."}
    answer_with(page, json.dumps({"error": {**error, "param": "mixture"}}), status=403)
    page.goto(f"{url}/#prompt=hi&mix=harmless=0.5")
    expect(page.locator(".behavior")).to_have_count(2)
    slider = page.get_by_role("slider", name="harmless")
    assert (slider.get_attribute("min"), slider.get_attribute("max")) == ("0.5", "1")
    assert page.get_by_role("slider", name="pirate").get_attribute("max") == "1.5"
    page.get_by_role("button", name="Run").click()
    for place in (column(page, "base"), page.locator("[data-param='mixture.harmless']")):
        expect(place.locator(".problem")).to_have_text(error["message"])


def test_a_taught_behaviors_slider_ends_where_its_range_ends(page, url):
    models = httpx.get(f"{url}/v1/models").json()
    for model in models["data"]:
        for behavior in model["eft"]["behaviors"]:
            if behavior["name"] == "pirate":
                behavior["recommended"] = {"weight": 0.75, "min": 0.5, "max": 1.25}
    page.route("**/v1/models", lambda route: route.fulfill(json=models))
    page.goto(url)
    row = page.locator("[data-param='mixture.pirate']")
    assert page.get_by_role("slider", name="pirate").get_attribute("max") == "1.25"
    expect(row.locator(".marks span")).to_have_text(["0", "0.75", "1.25"])
    expect(row).to_contain_text("works from 0.5 to 1.25, best at 0.75")
    assert page.get_by_role("slider", name="harmless").get_attribute("max") == "2"


def test_tools_that_are_not_json_are_shown_at_their_field(page, url):
    visit(page, url, **WHALES)
    page.get_by_text("System message and tools").click()
    page.get_by_label("Tools, as JSON").fill("{oops")
    page.get_by_role("button", name="Run").click()
    expect(page.locator("[data-param=tools] .problem")).to_contain_text("not JSON")
    assert "not JSON" in exported(page, "curl")


def test_a_tool_call_is_shown_and_its_result_answered(page, url):
    visit(page, url)
    page.get_by_role("checkbox", name="base alone").uncheck()
    page.get_by_role("checkbox", name="tuned alone").uncheck()
    page.get_by_role("button", name="A tool call").click()
    answer = column(page, "mixture")
    expect(answer.locator(DONE)).to_have_count(1)
    expect(answer.locator(".call strong")).to_have_text("get_weather")
    assert "San Francisco" in json.loads(answer.locator(".call pre").inner_text())["location"]
    answer.get_by_role("button", name="Continue from here").click()
    page.get_by_label("Result of tool call").fill("It is sunny.")
    bodies = sent(page)
    run(page, columns=1)
    roles = [message["role"] for message in bodies[-1]["messages"]]
    assert roles == ["user", "assistant", "tool"]
    assert "sunny" in text(answer).lower()


def test_a_conversation_goes_on_from_any_answer(page, url):
    visit(page, url, **WHALES, tuned="no")
    run(page, columns=2)
    reply = text(column(page, "mixture")).split("⟨")[0]
    column(page, "mixture").get_by_role("button", name="Continue from here").click()
    expect(page.get_by_label("Prompt", exact=True)).to_be_focused()
    turns = page.get_by_role("list", name="Conversation so far")
    expect(turns).to_contain_text(reply.strip())
    page.keyboard.type("Where do they live?")
    bodies = sent(page)
    page.keyboard.press("Enter")
    expect(page.locator(f".column:visible {DONE}")).to_have_count(2)
    contents = [message["content"].strip() for message in bodies[-1]["messages"]]
    assert contents == [WHALES["prompt"], reply.strip(), "Where do they live?"]
    turns.get_by_role("button", name="Edit from here").click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value(WHALES["prompt"])
    expect(turns.get_by_role("listitem")).to_have_count(0)


def test_a_schedule_is_typed_or_drawn(page, url):
    visit(page, url, **{**WHALES, "mix": "pirate=1", "max_tokens": 8}, base="no", tuned="no")
    bodies = sent(page)
    page.get_by_role("button", name="Schedule of pirate").press("Enter")
    row = page.locator("[data-param='mixture.pirate']")
    row.get_by_label("first tokens").check()
    row.get_by_label("to", exact=True).fill("0.2")
    row.get_by_label("tokens", exact=True).fill("4")
    run(page, columns=1)
    assert bodies[-1]["mixture"] == {"pirate": {"weight": 1, "tokens": 4, "then": 0.2}}
    assert "pirate (1 for 4 tokens, then 0.2)" in page.locator("#formula").inner_text()

    box = row.locator(".plot").bounding_box()
    page.mouse.move(box["x"] + 1, box["y"] + box["height"] * 0.95)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=10)
    page.mouse.move(box["x"] + box["width"] - 1, box["y"] + box["height"] / 2, steps=10)
    page.mouse.up()
    run(page, columns=1)
    drawn = bodies[-1]["mixture"]["pirate"]
    assert drawn["start"] == pytest.approx(0, abs=0.15)
    assert drawn["end"] == pytest.approx(1, abs=0.15)
    assert drawn["tokens"] == pytest.approx(32, abs=4)


def test_a_drawn_line_becomes_the_nearest_schedule(page, url):
    visit(page, url)
    fit = "async points => (await import('/page/fit.js')).fitSchedule(points, 64)"
    ramp = [{"x": x, "y": 2 - 2 * min(x / 20, 1)} for x in range(65)]
    assert page.evaluate(fit, ramp) == {"start": 2, "end": 0, "tokens": 20}
    step = [{"x": x, "y": 1.5 if x < 12 else 0.25} for x in range(65)]
    assert page.evaluate(fit, step) == {"weight": 1.5, "tokens": 12, "then": 0.25}
    point = page.evaluate(fit, [{"x": 0, "y": 0.5}])
    assert point.get("start", point.get("weight")) == 0.5


@pytest.mark.parametrize(
    "mixture",
    [
        "pirate=0.7",
        "a=0..1/32,b=1/16:0.3",
        "c=1e-05",
        "none",
        "d=1/below0.4:0,e=2/entropy-above1.5:0.5",
    ],
)
def test_links_and_commands_share_a_notation(page, url, mixture):
    visit(page, url)
    rewrite = "async text => { const n = await import('/page/notation.js');"
    rewrite += " return n.formatMixture(n.parseMixture(text)); }"
    assert page.evaluate(rewrite, mixture).replace("0.00001", "1e-05") == mixture


def test_markup_stays_text(page, url):
    answer_with(page, canned(MARKUP))
    visit(page, url, prompt=MARKUP, mix="pirate=1", turns=json.dumps([{"role": "user", "content": MARKUP}]))
    run(page)
    column(page, "mixture").locator(".token").hover()
    expect(page.locator(".card")).to_contain_text("<script>")
    page.locator(".card .alternative:enabled").click()
    expect(page.locator(f".fork {DONE}")).to_have_count(1)
    column(page, "mixture").get_by_role("button", name="Continue from here").first.click()
    expect(page.get_by_role("list", name="Conversation so far")).to_contain_text("<img src=x")
    assert page.locator("img, script:not([src])").count() == 0
    assert "hacked" not in page.title()


def test_markup_in_an_error_stays_text(page, url):
    page.refused = True
    error = {"message": MARKUP, "type": "invalid_request_error", "param": "mixture", "code": None}
    answer_with(page, json.dumps({"error": error}), status=400)
    visit(page, url, **WHALES)
    page.get_by_role("button", name="Run").click()
    expect(page.locator("#sliders > .problem")).to_have_text(MARKUP)
    assert page.locator("img").count() == 0


def test_an_answer_that_breaks_off_keeps_its_words_and_says_why(page, url):
    lines = [*canned("Ahoy").split("\r\n\r\n")[:1], 'data: {"error": {"message": "The engine failed."}}', ""]
    answer_with(page, "\r\n\r\n".join(lines))
    visit(page, url, **WHALES, base="no", tuned="no")
    page.get_by_role("button", name="Run").click()
    expect(column(page, "mixture").locator(".problem")).to_have_text("The engine failed.")
    expect(column(page, "mixture").locator(".token")).to_have_text("Ahoy")


def test_a_server_with_keys_is_asked_again_with_the_visitors(page, url):
    page.refused = True
    refusal = json.dumps({"error": {"message": "There is no API key.", "param": None}})

    def guard(route):
        if route.request.headers.get("authorization") == "Bearer s3cret-key":
            route.continue_()
        else:
            route.fulfill(status=401, body=refusal, content_type="application/json")

    page.route("**/v1/**", guard)
    page.goto(url)
    page.get_by_label("API key").fill("wrong-key")
    page.get_by_role("button", name="Use this key").click()
    page.get_by_label("API key").fill("s3cret-key")
    page.get_by_role("button", name="Use this key").click()
    expect(page.locator(".behavior")).to_have_count(4)
    assert "s3cret-key" not in exported(page, "curl") + exported(page, "Link")
    page.reload()
    expect(page.locator(".behavior")).to_have_count(4)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(page, url, scheme):
    axe = Axe()
    page.emulate_media(color_scheme=scheme)
    visit(page, url, **WHALES)
    assert serious(axe, page) == []
    run(page)
    for name in ("More", "System message and tools"):
        page.get_by_text(name, exact=True).click()
    page.get_by_role("button", name="Schedule of pirate").click()
    column(page, "mixture").locator(".token").nth(3).hover()
    page.locator(".card .alternative:enabled").first.click()
    expect(page.locator(f".fork {DONE}")).to_have_count(1)
    column(page, "mixture").get_by_role("button", name="Continue from here").first.focus()
    column(page, "mixture").locator(".token").nth(2).hover()
    expect(page.locator(".card")).to_be_visible()
    assert serious(axe, page) == []
    page.get_by_role("button", name="curl").click()
    assert serious(axe, page) == []


def serious(axe, page):
    """The serious issues that axe finds, as rule and place."""
    found = [v for v in axe.run(page).response["violations"] if v["impact"] in {"serious", "critical"}]
    return [(violation["id"], node["html"]) for violation in found for node in violation["nodes"]]


def test_a_narrow_page_needs_no_sideways_scroll(page, url):
    page.set_viewport_size({"width": 400, "height": 860})
    visit(page, url, **WHALES)
    run(page)
    page.get_by_role("button", name="Schedule of pirate").click()
    page.get_by_text("System message and tools").click()
    column(page, "mixture").locator(".token").nth(2).click()
    expect(page.locator(".card")).to_be_in_viewport(ratio=1)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


@pytest.mark.skipif(not SCREENSHOTS, reason="LANGCHAIN_EFT_SCREENSHOTS names no folder for pictures")
def test_pictures_for_the_documentation(page, url):
    page.set_viewport_size({"width": 1280, "height": 1240})  # the card has room below its word
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        visit(page, url)
        run(page)
        word(page, "compressed").hover()
        take(page, f"playground-{scheme}")
    page.emulate_media(color_scheme="light")
    page.locator(".card .alternative:enabled").first.click()
    expect(page.locator(f".fork {DONE}")).to_have_count(1)
    page.mouse.move(5, 5)
    take(page.locator(".fork"), "playground-fork")
    page.get_by_role("button", name="Sweep").click()
    expect(page.locator(f"#strip {DONE}")).to_have_count(6)
    take(page.locator(".sweep"), "playground-sweep")
    page.get_by_role("button", name="Schedule of pirate").click()
    page.locator("[data-param='mixture.pirate']").get_by_label("ramp").check()
    take(page.locator("[data-param='mixture.pirate']"), "playground-schedule")
    page.goto("about:blank")
    page.set_viewport_size({"width": 400, "height": 860})
    visit(page, url, prompt="What is the capital of Greece?", mix="pirate=1", base="no", tuned="no")
    run(page, columns=1)
    word(page, "Athens").click()
    take(page, "playground-narrow")


def word(page, text):
    """A word of the mixture's answer."""
    return column(page, "mixture").locator(".token").get_by_text(text, exact=True).first


def take(place, name):
    """Write a picture, in few colors so that it is small."""
    picture = pytest.importorskip("PIL.Image")
    Path(SCREENSHOTS).mkdir(parents=True, exist_ok=True)
    image = picture.open(io.BytesIO(place.screenshot())).convert("RGB")
    image.quantize(96).save(Path(SCREENSHOTS, f"{name}.png"), optimize=True)
