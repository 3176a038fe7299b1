"""`langchain-eft plan`: whether a recipe fits into memory, and how fast it can be.

Without `--cards` it plans this engine on one machine, with `--cards` vLLM on groups of GPUs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from langchain_eft.cli.console import InputError, notes, readable_errors
from langchain_eft.cli.options import JsonFlag, RecipeOptions, option_groups

if TYPE_CHECKING:
    from langchain_eft.chat_models import EFTChatModel
    from langchain_eft.diagnostics.plan import ClusterPlan, RecipePlan, Step


def plan_tables(plan: RecipePlan) -> Group:
    """A plan as two tables, of memory and of speed, and a verdict."""
    return Group(
        memory_table(plan),
        speed_table(plan),
        Text(plan.verdict, style="green" if plan.fits else "bold red"),
    )


def memory_table(plan: RecipePlan) -> Table:
    """The memory of each part of a recipe, their sum, and the free memory."""
    from langchain_eft.engine.loading.memory import gib

    table = Table(title="Memory")
    for heading in ("part", "of"):
        table.add_column(heading, overflow="fold")
    table.add_column("weights", justify="right", overflow="fold")
    table.add_column("precision", overflow="fold")
    table.add_column("", justify="right", overflow="fold")
    for part in plan.parts:
        weights = "" if part.parameters is None else _count(part.parameters)
        table.add_row(part.what, _name(part.source), weights, part.precision, gib(part.nbytes))
    table.add_section()
    table.add_row("all", "", "", "", gib(plan.needed))
    table.add_row("free", plan.device, "", "", gib(plan.free))
    return table


def _name(source: str) -> str:
    """A hub id as it is, and of a path its last part."""
    path = Path(source).expanduser()
    return path.name if path.exists() else source


def _count(parameters: int) -> str:
    return f"{parameters / 1e9:.2f} B" if parameters >= 1e9 else f"{parameters / 1e6:.2f} M"


def speed_table(plan: RecipePlan) -> Table:
    """Upper bounds of the speed of each way to decode, from the memory bandwidth."""
    bandwidth = plan.bytes_per_second
    table = Table(
        title="Speed at batch 1, if reading weights were all that takes time",
        caption=None if bandwidth is None else f"Memory is read at {bandwidth / 1e9:.1f} GB/s.",
    )
    table.add_column("decoding")
    for heading in ("weights read a token", "tokens a second"):
        table.add_column(heading, justify="right")
    for row in plan.speeds:
        rate = "" if row.tokens_per_second is None else f"{row.tokens_per_second:.3g}"
        table.add_row(row.what, f"{row.bytes_per_token / 1e9:.3g} GB", rate)
    return table


def cluster_tables(plans: Sequence[ClusterPlan]) -> Group:
    """Plans of one recipe on several clusters: memory of each card, steps, and verdicts."""
    return Group(card_table(plans), step_table(plans), *(cluster_verdict(plan) for plan in plans))


def card_table(plans: Sequence[ClusterPlan]) -> Table:
    """What each card holds, with a column for each cluster."""
    from langchain_eft.engine.loading.memory import gib

    table = _table_of_clusters("Memory of each card, in vLLM with tensor parallelism", plans)
    for i, part in enumerate(plans[0].parts):
        table.add_row(f"{part.what} ({part.source})", *(gib(plan.parts[i].nbytes) for plan in plans))
    table.add_section()
    spare = (max(plan.usable - sum(part.nbytes for part in plan.parts), 0) for plan in plans)
    table.add_row("left for keys and values", *map(gib, spare))
    table.add_row("keys and values of a token", *(f"{plan.kv_bytes / 2**10:.1f} KiB" for plan in plans))
    table.add_row("tokens that fit", *(f"{plan.kv_tokens:,}" for plan in plans))
    table.add_row("requests that fit", *(f"{plan.kv_tokens // plan.context:,}" for plan in plans))
    return table


def step_table(plans: Sequence[ClusterPlan]) -> Table:
    """The estimated time of a step and the throughput, with a column for each cluster."""
    context, models = plans[0].context, len(plans[0].models)
    table = _table_of_clusters(
        "Estimated step: ms (times the base alone), tokens/s of all requests",
        plans,
        caption=f"{context:,} tokens of each request. Every token runs all {models} models.",
    )
    for i, step in enumerate(plans[0].steps):
        requests = "1 request" if step.batch == 1 else f"{step.batch} requests"
        table.add_row(requests, *(_step_cell(plan.steps[i]) for plan in plans))
    table.add_section()
    table.add_row("to read 1,000 tokens, ms", *(f"{1e3 * plan.prompt_seconds:.0f}" for plan in plans))
    return table


def _table_of_clusters(title: str, plans: Sequence[ClusterPlan], caption: str | None = None) -> Table:
    table = Table(title=title, caption=caption)
    table.add_column("", overflow="fold")
    for plan in plans:
        table.add_column(plan.cluster.name, justify="right", overflow="fold")
    return table


def _step_cell(step: Step) -> str:
    if not step.fits:
        return "-"
    return f"{1e3 * step.time.seconds:.1f} ({step.times_base:.2f}), {step.tokens_per_second:,.0f}"


def cluster_verdict(plan: ClusterPlan) -> Text:
    """Whether a recipe fits a cluster, in one line."""
    if plan.fits:
        text = f"{plan.cluster.name} fits: {plan.kv_tokens:,} tokens have room for keys and values."
        return Text(text, style="green")
    text = (
        f"{plan.cluster.name} does not fit: no request of {plan.context:,} tokens has room. Use more or "
        "larger cards, or --quantization."
    )
    return Text(text, style="bold red")


@option_groups
def plan(
    recipe: RecipeOptions,
    *,
    quantization: Annotated[
        str | None,
        typer.Option(help="Format of the base's weights: int8, fp8 or nf4; with --cards, fp8, int8 or int4."),
    ] = None,
    requests: Annotated[int, typer.Option(min=1, help="Requests that decode together.")] = 16,
    context: Annotated[int, typer.Option(min=1, help="Tokens of prompt and answer of each request.")] = 1024,
    memory: Annotated[
        float | None,
        typer.Option(min=0, metavar="GIB", help="Plan for a GPU with this much memory free."),
    ] = None,
    bandwidth: Annotated[
        float | None,
        typer.Option(min=0, metavar="GB/S", help="Memory bandwidth. Left out, this machine's is measured."),
    ] = None,
    cards: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NxNAME",
            help="Plan for vLLM with tensor parallelism over these GPUs, such as '8xH200'; repeat the option "
            "to compare several. H100, H200 and B200 are known.",
        ),
    ] = None,
    kv_cache_dtype: Annotated[
        str, typer.Option(help="With --cards: format of keys and values, auto (bfloat16) or fp8.")
    ] = "auto",
    as_json: JsonFlag = False,
) -> None:
    """Compute the memory that a recipe takes and the best speed it can have, from configurations alone.

    No weights are loaded; of hub models only the configurations are fetched. The exit code is 1 if the recipe
    does not fit, with --cards if it fits nowhere.
    """
    if cards:
        with readable_errors():
            if memory is not None or bandwidth is not None:
                raise InputError("--cards knows memory and bandwidth: leave --memory and --bandwidth out.")
            with notes.status("Reading configurations"):
                plans = cluster_plans(recipe, cards, quantization, requests, context, kv_cache_dtype)
        if as_json:
            typer.echo(json.dumps([each.as_json() for each in plans], indent=2))
        else:
            Console(highlight=False).print(cluster_tables(plans))
        if not any(each.fits for each in plans):
            raise typer.Exit(1)
        return
    with readable_errors():
        if kv_cache_dtype != "auto":
            raise InputError("--kv-cache-dtype is an option of --cards.")
        llm = recipe.build_model(engine_options={"max_batch_size": requests, "quantization": quantization})
        with notes.status("Reading configurations") as status:
            from langchain_eft.diagnostics.plan import plan_recipe

            if bandwidth is None and memory is None:
                status.update("Measuring memory bandwidth")
                bandwidth = measured_bandwidth(llm)
                status.update("Reading configurations")
            recipe_plan = plan_recipe(
                llm.recipe,
                llm.active_mixture,
                llm.engine_config,
                upscale_strength=llm.upscale_strength,
                upscale_top_p=llm.upscale_top_p,
                context=context,
                free=None if memory is None else int(memory * 2**30),
                bytes_per_second=None if bandwidth is None else bandwidth * 1e9,
            )
    if as_json:
        typer.echo(json.dumps(recipe_plan.as_json(), indent=2))
    else:
        Console(highlight=False).print(plan_tables(recipe_plan))
    if not recipe_plan.fits:
        raise typer.Exit(1)


def cluster_plans(
    recipe: RecipeOptions,
    cards: Sequence[str],
    quantization: str | None,
    requests: int,
    context: int,
    kv_cache_dtype: str,
) -> list[ClusterPlan]:
    """The plans of a recipe on each of several clusters.

    Raises:
        InputError: A format is unknown.
        RecipeError: A cluster is unknown, or cannot share a model.
    """
    from langchain_eft.diagnostics.plan import BaseFormat, Cluster, plan_cluster, sharded_models

    formats = {name: name for name in get_args(BaseFormat)}
    if quantization is not None and quantization not in formats:
        raise InputError(f"--quantization {quantization} is not one of vLLM's: use {', '.join(formats)}.")
    itemsizes = {"auto": 2, "fp8": 1}
    if kv_cache_dtype not in itemsizes:
        raise InputError(f"--kv-cache-dtype {kv_cache_dtype} is unknown: use auto or fp8.")
    clusters = [Cluster.parse(text) for text in cards]
    base_format: BaseFormat | None = None if quantization is None else formats[quantization]
    models = sharded_models(recipe.build_model().recipe, base_format)
    return [
        plan_cluster(
            models, cluster, requests=requests, context=context, kv_itemsize=itemsizes[kv_cache_dtype]
        )
        for cluster in clusters
    ]


def measured_bandwidth(llm: EFTChatModel) -> float:
    """The memory bandwidth of the model's device, in GB/s."""
    from langchain_eft.diagnostics.bench import measure_machine

    return measure_machine(llm.device).bytes_per_second / 1e9
