"""What MkDocs calls while it builds the site: pages made from the code, and Markdown as GitHub reads it."""

from __future__ import annotations

from inspect import cleandoc
from pathlib import Path
from typing import Any

import typer
from cli_reference import cli_reference
from markdown_text import spaced_lists
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic import BaseModel
from settings_reference import settings_reference

from stoker.cli.app import app
from stoker.jobs.config import DataConfig, TrainingConfig
from stoker.models.registry import MODELS
from stoker.training.trainer import Trainer

__all__ = ["generated", "on_config", "on_files", "on_page_markdown"]


def generated() -> dict[str, str]:
    """The pages that are made from the code, by their place."""
    program: Any = typer.main.get_command(app)
    options = {one.name: one.help or "" for one in program.commands["fit"].params}
    groups: dict[str, type[BaseModel]] = {"data": DataConfig, "training": TrainingConfig}
    models: dict[str, type[BaseModel]] = {name: entry.config for name, entry in MODELS.items()}
    taken = (Trainer, Trainer.fit)
    return {
        "reference/cli.md": cli_reference(program),
        "reference/settings.md": settings_reference(
            groups, models, options, [cleandoc(one.__doc__ or "") for one in taken]
        ),
    }


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the benchmark's page to the menu once ``make bench-report`` has written it."""
    if (Path(config.docs_dir) / "benchmark.md").exists():
        for section in config.nav or []:
            if "Performance" in section:
                section["Performance"].append({"Beside its peers": "benchmark.md"})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages made from the code."""
    for place, text in generated().items():
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Read lists as GitHub does."""
    return spaced_lists(markdown)
