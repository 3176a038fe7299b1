"""The benchmark on a tiny family. The tests check what it counts, not the speed."""

import io
import json
import sys
import time

import pytest
from rich.console import Console

from langchain_eft import EFTChatModel
from langchain_eft.diagnostics import bench as benchmark
from langchain_eft.diagnostics.bench import (
    AUTO,
    BASE_ALONE,
    PLAIN,
    BenchmarkReport,
    DecodingMode,
    Machine,
    Measurement,
    PromptSet,
    Run,
    default_prompts,
    machine,
    measure_machine,
    numbered,
    numbered_tools,
    run_benchmark,
    summarize,
    tables,
    weights_read,
)
from langchain_eft.diagnostics.decoded_answer import DecodedAnswer, decode
from langchain_eft.engine.errors import ContextWindowError, RecipeError, RequestError
from langchain_eft.engine.events import Finished, TextDelta
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.errors import MissingPlotsError

END = 0
SETS = (
    PromptSet("letters", ("abc", "xyz")),
    PromptSet("digits", ("12", "34"), {"one": 0.5, "two": 0.5}),
)
MACHINE = Machine("a processor", 2, 1, "cpu", 1e9)


@pytest.fixture(scope="module")
def llm(family):
    return EFTChatModel(
        model=str(family.folder / "base"),
        behaviors=family.recipe.behaviors,
        mixture={"one": 1.0},
        temperature=0.8,
        logit_bias={END: -100.0},
        engine_options={"kv_cache_tokens": 2048},
    )


@pytest.fixture
def workload(llm):
    return benchmark.Workload(llm, llm.engine, 12)


def test_the_machine_is_measured_without_modules_of_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "colorsys.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "_READ_MEMORY", "import colorsys; print(2.5, 1, 'a device')")
    measured = measure_machine("cpu")
    assert (measured.bytes_per_second, measured.threads, measured.device) == (2.5, 1, "a device")


def test_a_device_that_cannot_be_measured_is_named_with_the_reason(monkeypatch):
    monkeypatch.setattr(machine, "_READ_MEMORY", "raise RuntimeError('there is no toaster')")
    with pytest.raises(RecipeError, match=r"device='toaster'.*toaster.*--bandwidth") as error:
        measure_machine("toaster")
    assert "time.perf_counter" not in str(error.value)


@pytest.fixture(scope="module")
def report(llm):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("langchain_eft.diagnostics.bench.report.measure_machine", lambda device: MACHINE)
        return run_benchmark(llm, prompts=SETS, max_tokens=4, repetitions=2, lengths=(3,), batch_sizes=(3,))


def measure(engine, batches):
    return summarize([decode(engine, batch) for batch in batches])


def run(tokens=10, seconds=1.0, passes=10, drafted=0, accepted=0):
    return Run(tokens, seconds, passes, drafted, accepted, first_token=0.1, new_prompt_tokens=20)


@pytest.mark.slow
def test_every_decoding_mode_is_measured(report):
    names = ["plain", "base alone", "draft 3", "auto"]
    swept = [(each.name, 1, name) for each in SETS for name in names]
    together = [("all", 3, name) for name in ("plain", "auto")]
    measured = [(each.prompts, each.batch_size, each.mode) for each in report.measurements]
    assert measured == swept + together


@pytest.mark.slow
def test_every_run_has_a_run_of_plain_eft_next_to_it(report):
    for measurement in report.measurements:
        if measurement.mode == PLAIN.name:
            assert measurement.baselines == ()
            assert measurement.ratio is None
        else:
            plain = next(
                each
                for each in report.measurements
                if (each.prompts, each.batch_size, each.mode)
                == (measurement.prompts, measurement.batch_size, PLAIN.name)
            )
            assert len(measurement.runs) == len(measurement.baselines) == report.repetitions
            assert set(measurement.baselines) <= set(plain.runs)


@pytest.mark.slow
def test_every_token_of_forced_answers_is_counted(report):
    for measurement in report.measurements:
        for each in measurement.runs:
            if measurement.batch_size == 1:
                assert each.tokens == 2 * 3  # the first of 4 tokens belongs to the prompt's pass
            assert each.accepted <= each.drafted
            assert each.passes <= each.tokens
            if measurement.mode in {PLAIN.name, BASE_ALONE.name}:
                assert each.passes == each.tokens
                assert each.drafted == 0


def test_ratios_come_from_runs_next_to_each_other():
    runs = (run(seconds=1.0), run(seconds=2.0), run(seconds=1.0))
    baselines = (run(seconds=2.0), run(seconds=8.0), run(seconds=1.5))
    measurement = Measurement("p", 1, "auto", runs, baselines, None)
    assert (measurement.ratio.low, measurement.ratio.median, measurement.ratio.high) == (1.5, 2.0, 4.0)
    assert measurement.tokens_per_second.median == 10.0


def test_rates_are_sums_over_runs_not_means_of_rates():
    measurement = Measurement(
        "p", 1, "auto", (run(30, 1, 10, 40, 20), run(10, 1, 10, 0, 0)), (run(), run()), 100
    )
    assert measurement.acceptance_rate == 0.5
    assert measurement.tokens_per_pass == 2.0
    assert measurement.bytes_per_second == 1000.0
    assert Measurement("p", 4, "plain", (run(),), (), None).bytes_per_second is None
    assert Measurement("p", 1, "plain", (run(),), (), None).acceptance_rate is None


@pytest.mark.slow
def test_a_measurement_agrees_with_the_statistics_of_the_engine(llm, workload):
    before = llm.engine.stats()
    measured = measure(llm.engine, workload.batches(SETS, 1, DecodingMode("draft 3", 3)))
    after = llm.engine.stats()
    assert measured.tokens == after.generated_tokens - before.generated_tokens - 4
    assert measured.drafted == after.drafted_tokens - before.drafted_tokens
    assert measured.accepted == after.accepted_tokens - before.accepted_tokens
    assert measured.tokens_per_second == measured.tokens / measured.seconds


def test_a_batch_is_measured_from_the_last_first_token(llm, workload):
    started = time.perf_counter()
    measured = measure(llm.engine, workload.batches(SETS, 4, PLAIN))
    assert measured.tokens <= 4 * 11
    assert measured.seconds < time.perf_counter() - started


def test_tokens_before_the_last_first_token_do_not_count(workload):
    asked = workload.request(SETS[0], "abc", PLAIN)
    end = Finished("length", 5, 4, 0, 0, 0, 3, time_to_first_token=0.5, seconds=3.0)

    def came(*times):
        return DecodedAnswer(asked, tuple(TextDelta("ab", (1, 2), ("a", "b"), at=at) for at in times), end)

    measured = summarize([[came(1.0, 2.0, 3.0), came(2.0, 2.5, 4.0)], [came(0.0, 1.0)]])
    assert (measured.tokens, measured.passes, measured.seconds) == (8, 4, 2.0 + 1.0)


def test_batches_are_full(workload):
    for batch_size, sizes in ((1, [1, 1, 1, 1]), (3, [3, 3]), (4, [4]), (16, [16])):
        assert [len(batch) for batch in workload.batches(SETS, batch_size, PLAIN)] == sizes


def test_no_prompt_occurs_twice(workload):
    batches = [batch for _ in range(2) for batch in workload.batches(SETS, 4, PLAIN)]
    prompts = [request.prompt_ids for batch in batches for request in batch]
    assert len(set(prompts)) == len(prompts) == 8


def test_every_prompt_and_every_tool_contains_the_number():
    for each in default_prompts(EFTChatModel()):
        tools = numbered_tools(each, 4711)
        assert len(tools) == len(each.tools)
        texts = [numbered(each.questions[0], 4711), *map(str, tools)]
        assert all("4711" in text and "{number}" not in text for text in texts)


def test_requests_have_the_users_settings(llm, workload):
    request = workload.request(SETS[0], "abc", AUTO)
    assert request.speculation == "auto"
    assert request.mixture == Mixture.of({"one": 1.0})
    assert request.sampling.temperature == 0.8
    assert request.sampling.logit_bias == {END: -100.0}
    assert workload.request(SETS[1], "12", PLAIN).mixture == Mixture.of({"one": 0.5, "two": 0.5})


def test_the_base_alone_has_no_mixture_and_no_upscaling(llm):
    amplified = llm.model_copy(update={"upscale_strength": 1.5, "upscale_top_p": 0.9})
    workload = benchmark.Workload(amplified, llm.engine, 12)
    request = workload.request(SETS[0], "abc", BASE_ALONE)
    assert (request.mixture, request.upscale_strength, request.upscale_top_p) == (Mixture(), 1.0, 1.0)
    assert workload.request(SETS[0], "abc", PLAIN).upscale_strength == 1.5


def test_a_recipe_without_behaviors_is_its_base_alone(family, monkeypatch):
    monkeypatch.setattr("langchain_eft.diagnostics.bench.report.measure_machine", lambda device: MACHINE)
    llm = EFTChatModel(
        model=str(family.folder / "base"),
        logit_bias={END: -100.0},
        engine_options={"kv_cache_tokens": 2048},
    )
    report = run_benchmark(llm, prompts=SETS[:1], max_tokens=5, repetitions=1, lengths=(2,), batch_sizes=(1,))
    assert [measurement.mode for measurement in report.measurements] == [
        "plain",
        "draft 2",
        "auto",
        "plain",
        "auto",
    ]


def test_the_bundled_family_answers_each_kind_with_its_own_behavior():
    def mixtures(llm):
        return [each.mixture for each in default_prompts(llm)]

    assert mixtures(EFTChatModel()) == [{"harmless": 1.0}, {"tools": 1.0}, {"tools": 1.0}]
    assert mixtures(EFTChatModel(mixture={"pirate": 1.0})) == [None, None, None]


def test_other_recipes_use_their_own_mixture(llm):
    assert [each.mixture for each in default_prompts(llm)] == [None, None, None]


def test_weights_are_counted_once(llm, reference):
    engine = llm.engine
    base = sum(parameter.nbytes for parameter in reference.base.parameters())
    layers = sum(parameter.nbytes for parameter in reference.small["reference"].model.layers.parameters())
    norm = reference.small["reference"].model.norm.weight.nbytes
    assert weights_read(engine, Mixture()) == base
    assert weights_read(engine, Mixture.of({"one": 1.0})) == base + layers + norm
    assert weights_read(engine, Mixture.of({"one": 1.0, "two": 1.0})) == base + layers + norm


@pytest.mark.slow
def test_a_bandwidth_share_is_reported_for_single_requests_only(report):
    for measurement in report.measurements:
        if measurement.batch_size > 1:
            assert report.bandwidth_share(measurement) is None
        else:
            assert report.bandwidth_share(measurement) == measurement.bytes_per_second / 1e9


@pytest.mark.slow
def test_json_holds_runs_and_summary(report):
    loaded = json.loads(report.to_json())
    assert loaded["machine"]["processor"] == "a processor"
    assert len(loaded["measurements"]) == len(report.measurements)
    for summary, measurement in zip(loaded["measurements"], report.measurements, strict=True):
        assert summary["tokens_per_second"]["median"] == measurement.tokens_per_second.median
        assert len(summary["runs"]) == len(measurement.runs)


@pytest.mark.slow
def test_the_tables_show_every_measurement(report):
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(tables(report))
    text = console.export_text()
    assert text.count("draft 3") == 2
    assert text.count("auto") == 3
    assert "a processor, 2 cores, 1 threads" in text


def test_invalid_settings_are_refused(llm):
    with pytest.raises(RequestError, match="'max_batch_size': 32"):
        run_benchmark(llm, prompts=SETS, batch_sizes=(1, 32))
    with pytest.raises(RequestError, match="max_tokens=1"):
        run_benchmark(llm, prompts=SETS, max_tokens=1)
    with pytest.raises(RequestError, match="repetitions=0"):
        run_benchmark(llm, prompts=SETS, repetitions=0)


def test_answers_of_one_token_are_refused(llm):
    ending = llm.model_copy(update={"logit_bias": {END: 1000.0}})
    workload = benchmark.Workload(ending, llm.engine, 12)
    with pytest.raises(RequestError, match="first token"):
        measure(llm.engine, workload.batches(SETS, 1, PLAIN))


def test_a_refused_request_cancels_the_rest_of_its_batch(llm, workload):
    fits = workload.request(SETS[0], "abc", PLAIN).model_copy(update={"max_tokens": 100})
    too_long = fits.model_copy(update={"max_tokens": 10_000})
    with pytest.raises(ContextWindowError):
        decode(llm.engine, [fits, too_long])
    while llm.engine.stats().running + llm.engine.stats().waiting:
        time.sleep(0.01)
    assert measure(llm.engine, workload.batches(SETS, 2, PLAIN)).tokens


def test_a_tokenizer_without_template_is_refused(workload, llm, monkeypatch):
    monkeypatch.setattr(llm.engine.tokenizer, "chat_template", None)
    with pytest.raises(RequestError, match="has no chat template: give one with `chat_template="):
        workload.request(SETS[0], "abc", PLAIN)


@pytest.mark.slow
def test_a_missing_matplotlib_names_the_remedy(report, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingPlotsError, match=r'pip install "langchain-eft\[plots\]"'):
        benchmark.plot(report, tmp_path / "plot.png")


@pytest.mark.slow
def test_the_plot_is_a_png(report, tmp_path):
    benchmark.plot(report, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_machine_is_described_and_measured():
    machine = benchmark.measure_machine("cpu")
    assert machine.processor
    assert machine.device == "cpu"
    assert machine.cores >= 1
    assert machine.bytes_per_second > 1e8


def test_a_report_without_measurements_is_still_json():
    assert json.loads(BenchmarkReport("m", MACHINE, 8, 1, ()).to_json())["measurements"] == []
