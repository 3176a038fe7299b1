"""`langchain-eft plan`: will a recipe fit, and how fast can it be?"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from langchain_eft.cli.console import notes, readable_errors
from langchain_eft.cli.options import (
    BaseTemplate,
    Behavior,
    ChatTemplate,
    Device,
    Dtype,
    Mix,
    Model,
    Reference,
    UpscaleStrength,
    UpscaleTopP,
    build_model,
    recipe_settings,
)

if TYPE_CHECKING:
    from langchain_eft.diagnostics.plan import Plan


def plan_tables(plan: Plan) -> Group:
    """A plan for people to read."""
    from langchain_eft.engine.loading.memory import gib

    memory = Table(title="Memory")
    for heading, side in (
        ("part", "left"),
        ("of", "left"),
        ("weights", "right"),
        ("precision", "left"),
        ("", "right"),
    ):
        memory.add_column(heading, justify=side, overflow="fold")  # type: ignore[arg-type]
    for part in plan.parts:
        weights = "" if part.parameters is None else _count(part.parameters)
        memory.add_row(part.what, part.source, weights, part.precision, gib(part.nbytes))
    memory.add_section()
    memory.add_row("all", "", "", "", gib(plan.needed))
    memory.add_row("free", plan.device, "", "", gib(plan.free))
    speed = Table(
        title="Speed at batch 1, if reading weights were all that takes time",
        caption=None
        if plan.bytes_per_second is None
        else f"Memory is read at {plan.bytes_per_second / 1e9:.1f} GB/s.",
    )
    for heading in ("decoding", "weights read a token", "tokens a second"):
        speed.add_column(heading, justify="left" if heading == "decoding" else "right")
    for row in plan.speeds:
        rate = "" if row.tokens_per_second is None else f"{row.tokens_per_second:.3g}"
        speed.add_row(row.what, f"{row.bytes_per_token / 1e9:.3g} GB", rate)
    return Group(memory, speed, Text(plan.verdict, style="green" if plan.fits else "bold red"))


def _count(parameters: int) -> str:
    return f"{parameters / 1e9:.2f} B" if parameters >= 1e9 else f"{parameters / 1e6:.2f} M"


def plan(
    mix: Mix = None,
    model: Model = None,
    behavior: Behavior = None,
    reference: Reference = None,
    chat_template: ChatTemplate = None,
    base_template: BaseTemplate = None,
    upscale_strength: UpscaleStrength = None,
    upscale_top_p: UpscaleTopP = None,
    device: Device = None,
    dtype: Dtype = None,
    quantization: Annotated[
        str | None, typer.Option(help="Bits of the base's weights: int8, fp8, nf4 or llm.int8.")
    ] = None,
    requests: Annotated[int, typer.Option(min=1, help="Requests that decode together.")] = 16,
    context: Annotated[int, typer.Option(min=1, help="Tokens of prompt and answer of each.")] = 1024,
    memory: Annotated[
        float | None,
        typer.Option(min=0, metavar="GIB", help="Plan for a GPU with this much memory free."),
    ] = None,
    bandwidth: Annotated[
        float | None,
        typer.Option(min=0, metavar="GB/S", help="Memory bandwidth. Left out, this machine's is measured."),
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Tell the memory that a recipe takes, and its speed at best, from configurations alone.

    Nothing is loaded; of hub models only configurations are fetched. Leaves with exit code 1 if it does not
    fit.
    """
    with readable_errors():
        settings = recipe_settings(
            model, mix, behavior, reference, chat_template=chat_template, base_template=base_template,
            upscale_strength=upscale_strength, upscale_top_p=upscale_top_p,
            device=device, dtype=dtype,
        )  # fmt: skip
        options = {"max_batch_size": requests, "quantization": quantization}
        llm = build_model(engine_options=options, **settings)
        with notes.status("Reading configurations") as status:
            from langchain_eft.diagnostics.plan import make_plan

            if bandwidth is None and memory is None:
                from langchain_eft.diagnostics.bench import measure_machine

                status.update("Measuring memory bandwidth")
                bandwidth = measure_machine(llm.device).bytes_per_second / 1e9
                status.update("Reading configurations")
            found = make_plan(
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
        typer.echo(json.dumps(found.as_json(), indent=2))
    else:
        Console(highlight=False).print(plan_tables(found))
    if not found.fits:
        raise typer.Exit(1)
