"""The command line: `instant-refine serve | refine | bench | styles | models | keys | doctor`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from models.checkpoints.catalog import find_checkpoint, find_checkpoints
from models.errors import CheckpointError
from models.malloc import bound_malloc, start_gc_thread
from models.styles.presets import load_styles
from service.api_keys import KeyFileError
from service.cli.keys import app as keys_app
from service.cli.models import app as models_app
from service.errors import RefineError
from service.front.access_control.keyring import is_loopback
from service.front.schemas.requests import MAX_SEED, SIDES
from service.logs import configure_logging
from service.settings import Settings

EXIT_USAGE = 2

app = typer.Typer(
    name="instant-refine",
    help="Refine pictures in real time with a latent consistency model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # else [@REVISION] in a help text is taken for markup
)
app.add_typer(models_app, name="models")
app.add_typer(keys_app, name="keys")

_out = Console()
_err = Console(stderr=True)

ModelOption = Annotated[
    str | None,
    typer.Option(help="Checkpoint: a catalogue name, a folder, or a hub id ORG/NAME[@REVISION]"),
]
DeviceOption = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N")]
DevicesOption = Annotated[
    str | None,
    typer.Option("--devices", "--device", help="auto, or cpu, cuda:0,cuda:1, ...: an engine each"),
]


def main() -> None:
    """Run the command line; a fault that the user can mend is one sentence, not a trace."""
    try:
        app()
    except (CheckpointError, RefineError, KeyFileError, OSError) as error:
        _fail(str(error))


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on")] = None,
    model: ModelOption = None,
    device: DevicesOption = None,
    ray: Annotated[
        str | None, typer.Option(help="Run engines on a Ray cluster: local, auto or its address")
    ] = None,
    *,
    pull: Annotated[bool, typer.Option(help="Download the checkpoint first if need be")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Hold every file against its sha256 first")
    ] = False,
    insecure_no_auth: Annotated[
        bool, typer.Option("--insecure-no-auth", help="Serve other machines without any key")
    ] = False,
) -> None:
    """Serve the API until a signal ends it."""
    from service.front.app import create_app  # noqa: PLC0415 - each command loads what it needs
    from service.front.server import MAPPED_BYTES, create_server  # noqa: PLC0415

    bound_malloc(MAPPED_BYTES)
    settings = _settings(
        host=host,
        port=port,
        model=model,
        device=device,
        ray=ray,
        insecure_no_auth=insecure_no_auth or None,
        verify="full" if verify else None,
    )
    _check_keys(settings)
    configure_logging(settings.log_format)
    _find_files(settings, pull=pull)
    server = create_server(create_app(settings, _client(settings)), settings)
    start_gc_thread()
    server.run()
    if server.failure:
        _fail(server.failure)


@app.command()
def refine(  # noqa: PLR0917 - typer's options are all by name
    picture: Annotated[Path, typer.Argument(metavar="IN", help="The picture to refine")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT")],
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="What it shows")],
    style: Annotated[str, typer.Option(help="One of `instant-refine styles`")] = "NONE",
    steps: Annotated[int | None, typer.Option(help="4 to 16")] = None,
    strength: Annotated[float | None, typer.Option(help="0.1 (faithful) to 1 (free)")] = None,
    guidance: Annotated[float | None, typer.Option(help="0.5 to 20")] = None,
    seed: Annotated[int | None, typer.Option(help=f"0 to {MAX_SEED}; else at random")] = None,
    width: Annotated[int, typer.Option(help="512, 640 or 1024")] = SIDES[0],
    height: Annotated[int, typer.Option(help="512, 640 or 1024")] = SIDES[0],
    model: ModelOption = None,
    device: DeviceOption = None,
) -> None:
    """Refine one picture, with an engine of its own.

    It loads one checkpoint: --model, which may be the modelId of one in REFINE_MODELS, else the
    first of these.
    """
    from service.cli.refine import refine_file  # noqa: PLC0415

    configure_logging("console")
    settings = _only(model, _settings(device=device))
    _find_files(settings, pull=False)
    fields = {
        "prompt": prompt,
        "style": style,
        "steps": steps,
        "strength": strength,
        "guidance": guidance,
        "seed": seed,
        "width": width,
        "height": height,
    }
    refine_file(
        picture, output, fields=fields, settings=settings, client=_client(settings), console=_err
    )


@app.command()
def warm(
    shapes: Annotated[
        str | None, typer.Option(help="HEIGHTxWIDTH, comma-separated; else REFINE_WARMUP_SHAPES")
    ] = None,
    save_cache: Annotated[
        Path | None, typer.Option(help="Folder to keep them in; else REFINE_CACHE_DIR")
    ] = None,
    model: ModelOption = None,
    device: DeviceOption = None,
) -> None:
    """Compile the forwards of a checkpoint for the next start, or for an image."""
    from service.engine.warmup import Compiler  # noqa: PLC0415

    settings = _settings(
        warmup_shapes=shapes, cache_dir=save_cache, model=model, device=device, compile="full"
    )
    _find_files(settings, pull=False)
    if Compiler(settings.engines()[0], settings.shapes()).wait():
        _fail("some forwards could not be compiled; the log says why, and they will run eager")
    _out.print(f"compiled forwards are in {settings.cache_dir.expanduser()}")


@app.command()
def bench(  # noqa: PLR0917 - as above
    url: Annotated[str, typer.Argument(help="The server, such as http://127.0.0.1:8000")],
    users: Annotated[int, typer.Option(min=1, help="Users who ask again when answered")] = 8,
    rate: Annotated[
        float | None, typer.Option(min=0.01, help="Or requests a second, whatever is answered")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long to ask")] = 20.0,
    size: Annotated[int, typer.Option(help="512, 640 or 1024")] = SIDES[0],
    steps: Annotated[int, typer.Option(min=4, max=16)] = 4,
    route: Annotated[str, typer.Option(help="The route to ask")] = "/lcm-instant-refine",
    key: Annotated[str, typer.Option(envvar="REFINE_KEY", help="Bearer key")] = "",
    picture: Annotated[Path | None, typer.Option(help="A picture to send; else noise")] = None,
    limit_ms: Annotated[float, typer.Option(min=1, help="Goodput: pictures within it")] = 300.0,
    *,
    mixed: Annotated[bool, typer.Option("--mixed", help="Mix steps, strength, sizes, ...")] = False,
) -> None:
    """Load a server of this API and print its latency and throughput."""
    from service.loadgen.command import bench as run_bench  # noqa: PLC0415
    from service.loadgen.loops import Load, Target  # noqa: PLC0415
    from service.loadgen.workload import Trace  # noqa: PLC0415

    if size not in SIDES:
        _fail(f"--size must be one of {', '.join(map(str, SIDES))}", EXIT_USAGE)
    trace = Trace(size, steps, mixed, picture=picture.read_bytes() if picture else None)
    target = Target(url.rstrip("/"), "/" + route.lstrip("/"), key)
    load = Load(users, rate, seconds)
    has_pictures = run_bench(target, trace, load, limit_ms=limit_ms, out=_out, err=_err)
    raise typer.Exit(0 if has_pictures else 1)


@app.command()
def inspect(
    picture: Annotated[Path, typer.Argument(metavar="FILE", help="A picture of our making")],
) -> None:
    """Print the parameters that a picture was made with, as JSON."""
    from service.front.images.codec import read_metadata  # noqa: PLC0415

    metadata = read_metadata(picture.read_bytes())
    if metadata is None:
        _fail(f"{picture} holds no parameters of instant-refine")
    _out.print_json(data=metadata)


@app.command()
def styles(
    *,
    pull: Annotated[
        bool, typer.Option(help="Download the LoRAs that they name on the hub")
    ] = False,
) -> None:
    """List the styles and what each adds to a prompt."""
    from models.lora.files import pull_loras  # noqa: PLC0415

    known = load_styles(_settings().styles)
    if pull:
        for name, path in pull_loras(known).items():
            _out.print(f"the LoRA of {name} is in {path}", soft_wrap=True)
        return
    table = Table("name", "title", "prompt")
    for style in known.values():
        table.add_row(style.name, style.title, style.prompt)
    _out.print(table)


@app.command()
def doctor() -> None:
    """Check this machine, and say how to mend what is amiss."""
    from service.cli.doctor import diagnose  # noqa: PLC0415 - loads torch

    is_well = diagnose(_settings(), _out)
    raise typer.Exit(0 if is_well else 1)


def _settings(**given: Any) -> Settings:
    """Join the options with the environment; options win, a --model over REFINE_MODELS too."""
    if given.get("model") is not None:
        given["models"] = ""
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        if not first["loc"]:
            _fail(first["msg"].removeprefix("Value error, "), EXIT_USAGE)
        name = str(first["loc"][0])
        _fail(f"REFINE_{name.upper()} (--{name}): {first['msg']}", EXIT_USAGE)


def _check_keys(settings: Settings) -> None:
    """End where strangers could ask: on an address that other machines reach, without keys."""
    if settings.needs_key or settings.insecure_no_auth or is_loopback(settings.host):
        return
    _fail(
        f"{settings.host} is reachable from other machines: set REFINE_API_KEYS or "
        "REFINE_KEYS_FILE to serve there, or serve on 127.0.0.1; --insecure-no-auth serves "
        "everybody",
        EXIT_USAGE,
    )


def _only(model: str | None, settings: Settings) -> Settings:
    """Return the settings with one checkpoint: the one that is named, else the default."""
    loaded, own = settings.model_names(), settings.own_catalog()
    named = {find_checkpoint(name, own).name: name for name in loaded} if model else {}
    chosen = named.get(model, model) if model else loaded[0]
    return settings.model_copy(update={"model": chosen, "models": ""})


def _find_files(settings: Settings, *, pull: bool) -> None:
    """Raise CheckpointError now, not from the engine, when files are not here or not whole."""
    from models.checkpoints import hub  # noqa: PLC0415
    from models.lora import files as lora_files  # noqa: PLC0415

    styles = load_styles(settings.styles)
    if pull:
        lora_files.pull_loras(styles)
    for style in styles.values():
        lora_files.local_lora(style)
    for checkpoint in find_checkpoints(settings.model_names(), settings.own_catalog()).values():
        if pull and not hub.is_local(checkpoint):
            hub.pull(checkpoint)
        hub.verify(checkpoint, hashes=False)


def _client(settings: Settings) -> Any:
    if settings.ray:
        from service.ray_serve import LOCAL, keep_to_loopback  # noqa: PLC0415

        if settings.ray == LOCAL:
            keep_to_loopback()
        from service.ray_serve.deployment import cluster_client  # noqa: PLC0415

        return cluster_client(settings)
    from service.engine_client.pool import local_client  # noqa: PLC0415

    return local_client(settings)


def _fail(message: str, exit_code: int = 1) -> NoReturn:
    _err.print(f"[red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)
    sys.exit(exit_code)
