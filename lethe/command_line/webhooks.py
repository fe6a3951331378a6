"""`lethe webhook`: where to tell what becomes of deletion requests."""

from itertools import islice
from typing import Annotated
from uuid import UUID

import typer
from rich.table import Table

from lethe.command_line.options import AsJson, Limit
from lethe.command_line.screen import Screen, details, table, word
from lethe.command_line.session import connect
from lethe.schemas.webhooks import Delivery, DeliveryStatus, Event, Webhook, WebhookStatus

app = typer.Typer(no_args_is_help=True, help="Where to tell what becomes of deletion requests.")

WebhookId = Annotated[UUID, typer.Argument(help="The webhook.", show_default=False)]
Events = Annotated[
    list[Event] | None,
    typer.Option("--event", help="Tell of this; may be repeated.", show_default="all"),
]


@app.command()
def add(
    context: typer.Context,
    url: Annotated[
        str, typer.Argument(help="An https URL in the public internet.", show_default=False)
    ],
    event: Events = None,
    description: Annotated[str | None, typer.Option(help="For yourself.")] = None,
    as_json: AsJson = False,
) -> None:
    """Register a webhook. Keep the secret that is printed: it is shown once."""
    with connect(context) as lethe:
        made = lethe.register_webhook(url, events=event, description=description)
    Screen(as_json).show(made, _picture(made), details([("secret", made.secret)]))


@app.command("list")
def show_all(context: typer.Context, limit: Limit = 50, as_json: AsJson = False) -> None:
    """List webhooks, the newest first."""
    with connect(context) as lethe:
        found = list(islice(lethe.list_webhooks(), limit))
    columns = ("Webhook", "Status", "URL", "Events", "Description")
    rows = ((w.id, word(w.status), w.url, _events(w), w.description) for w in found)
    Screen(as_json).show(found, table(columns, rows))


@app.command()
def show(context: typer.Context, webhook_id: WebhookId, as_json: AsJson = False) -> None:
    """Show one webhook."""
    with connect(context) as lethe:
        read = lethe.read_webhook(webhook_id)
    Screen(as_json).show(read, _picture(read))


@app.command()
def enable(context: typer.Context, webhook_id: WebhookId, as_json: AsJson = False) -> None:
    """Send what happens from now on."""
    with connect(context) as lethe:
        read = lethe.change_webhook(webhook_id, status=WebhookStatus.ENABLED)
    Screen(as_json).show(read, _picture(read))


@app.command()
def disable(context: typer.Context, webhook_id: WebhookId, as_json: AsJson = False) -> None:
    """Send nothing any more; what waits is given up."""
    with connect(context) as lethe:
        read = lethe.change_webhook(webhook_id, status=WebhookStatus.DISABLED)
    Screen(as_json).show(read, _picture(read))


@app.command()
def delete(context: typer.Context, webhook_id: WebhookId, as_json: AsJson = False) -> None:
    """Delete a webhook, with its deliveries and its secrets."""
    with connect(context) as lethe:
        lethe.delete_webhook(webhook_id)
    Screen(as_json).show({"deleted": str(webhook_id)}, "The webhook is deleted.")


@app.command()
def rotate(context: typer.Context, webhook_id: WebhookId, as_json: AsJson = False) -> None:
    """Make a new secret. For 24 hours everything is signed with both."""
    with connect(context) as lethe:
        new = lethe.rotate_webhook_secret(webhook_id)
    pairs = [("secret", new.secret), ("the old one signs until", new.previous_secret_until)]
    Screen(as_json).show(new, details(pairs))


@app.command("test")
def try_out(context: typer.Context, webhook_id: WebhookId, as_json: AsJson = False) -> None:
    """Send a test event; `lethe webhook deliveries` shows what came of it."""
    with connect(context) as lethe:
        sent = lethe.test_webhook(webhook_id)
    Screen(as_json).show(sent, _deliveries([sent]))


@app.command()
def deliveries(
    context: typer.Context,
    webhook_id: WebhookId,
    only: Annotated[
        DeliveryStatus | None, typer.Option("--status", help="Those of this status.")
    ] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List what was sent or is to be sent, the newest first."""
    with connect(context) as lethe:
        found = list(islice(lethe.list_deliveries(webhook_id, status=only), limit))
    Screen(as_json).show(found, _deliveries(found))


@app.command()
def retry(
    context: typer.Context,
    webhook_id: WebhookId,
    delivery_id: Annotated[UUID, typer.Argument(help="The delivery.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Send a delivery that was given up once more."""
    with connect(context) as lethe:
        sent = lethe.retry_delivery(webhook_id, delivery_id)
    Screen(as_json).show(sent, _deliveries([sent]))


def _picture(webhook: Webhook) -> Table:
    return details(
        [
            ("webhook", webhook.id),
            ("url", webhook.url),
            ("status", word(webhook.status)),
            ("because", webhook.disabled_reason),
            ("events", _events(webhook)),
            ("description", webhook.description),
            ("the old secret signs until", webhook.previous_secret_until),
        ]
    )


def _events(webhook: Webhook) -> str:
    return "all" if webhook.events is None else ", ".join(webhook.events)


def _deliveries(found: list[Delivery]) -> Table:
    columns = ("Delivery", "Event", "Status", "Attempt", "Answer", "Failure", "Next", "Created")
    return table(
        columns,
        (
            (
                one.id,
                one.event,
                word(one.status),
                one.attempt,
                one.response_status,
                one.failure,
                one.next_attempt_at,
                one.created_at,
            )
            for one in found
        ),
    )
