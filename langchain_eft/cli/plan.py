"""`langchain-eft plan`: whether a recipe fits into memory, and how fast it can be."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from langchain_eft.cli.console import notes, readable_errors
from langchain_eft.cli.options import JsonFlag, RecipeOptions, option_groups

if TYPE_CHECKING:
    from langchain_eft.chat_models import EFTChatModel
    from langchain_eft.diagnostics.plan import RecipePlan


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
        table.add_row(part.what, part.source, weights, part.precision, gib(part.nbytes))
    table.add_section()
    table.add_row("all", "", "", "", gib(plan.needed))
    table.add_row("free", plan.device, "", "", gib(plan.free))
    return table


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


@option_groups
def plan(
    recipe: RecipeOptions,
    *,
    quantization: Annotated[
        str | None, typer.Option(help="Format of the base's weights: int8, fp8, nf4 or llm.int8.")
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
    as_json: JsonFlag = False,
) -> None:
    """Compute the memory that a recipe takes and the best speed it can have, from configurations alone.

    No weights are loaded; of hub models only the configurations are fetched. The exit code is 1 if the recipe
    does not fit.
    """
    with readable_errors():
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


def measured_bandwidth(llm: EFTChatModel) -> float:
    """The memory bandwidth of the model's device, in GB/s."""
    from langchain_eft.diagnostics.bench import measure_machine

    return measure_machine(llm.device).bytes_per_second / 1e9
