"""Messages to people, by Prefect's own notification blocks: Slack, Teams, e-mail, any webhook."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import prefect.blocks.notifications  # noqa: F401  (Prefect finds a block by its type only when that type was imported)
from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.core import Block


def load_block(name: str) -> NotificationBlock:
    """The block `type/name`, e.g. slack-webhook/ops.

    Raises:
        ValueError: if the server knows none of that name, or it sends no notifications.
    """
    try:
        block = Block.load(name)
    except ValueError as error:
        raise ValueError(f"schedule.notify: {error}; make it under Blocks in the UI, or take notify out") from None
    if not isinstance(block, NotificationBlock):
        raise ValueError(f"schedule.notify: {name} sends no notifications; give one that does, e.g. slack-webhook/ops")
    return block


def tell(name: str | None, subject: str, body: str) -> None:
    """Nobody is told if there is no name."""
    if name is not None:
        send: Callable[..., Any] = load_block(name).notify  # declared async, but not so when called from plain code
        send(body, subject)
