"""Gather the commands under `detent`."""

import typer

from detent_cli.artifact import app as artifact_app
from detent_cli.attribution import attribution
from detent_cli.backtest import backtest
from detent_cli.capital import capital
from detent_cli.data import app as data_app
from detent_cli.dataset import app as dataset_app
from detent_cli.decide import decide
from detent_cli.demo import demo
from detent_cli.determinism import verify_determinism
from detent_cli.features import app as features_app
from detent_cli.heads import app as heads_app
from detent_cli.kill import app as kill_app
from detent_cli.ledger import app as ledger_app
from detent_cli.monitor import monitor
from detent_cli.plan import app as plan_app
from detent_cli.promotion import evaluate, promote
from detent_cli.ready import ready
from detent_cli.registry import app as registry_app
from detent_cli.rollout import app as rollout_app
from detent_cli.shadow import app as shadow_app
from detent_cli.stand_down import stand_down
from detent_cli.sweep import sweep
from detent_cli.train import train
from detent_cli.up import up

app = typer.Typer(
    name="detent",
    help="Serve machine-learned trading signals that scale what a trigger has permitted.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
app.command()(demo)
app.command()(up)
app.command()(decide)
app.command()(train)
app.command()(attribution)
app.command()(backtest)
app.command()(capital)
app.command()(sweep)
app.command()(monitor)
app.command()(stand_down)
app.command()(verify_determinism)
app.command()(evaluate)
app.command()(promote)
app.command()(ready)
app.add_typer(artifact_app, name="artifact")
app.add_typer(data_app, name="data")
app.add_typer(dataset_app, name="dataset")
app.add_typer(features_app, name="features")
app.add_typer(kill_app, name="kill")
app.add_typer(heads_app, name="heads")
app.add_typer(ledger_app, name="ledger")
app.add_typer(plan_app, name="plan")
app.add_typer(registry_app, name="registry")
app.add_typer(rollout_app, name="rollout")
app.add_typer(shadow_app, name="shadow")
