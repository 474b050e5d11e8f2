"""`POST /v1/tickets`: a ticket opens one socket of `/v1/realtime` in place of a key."""

from __future__ import annotations

import time

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from starlette.requests import Request
from starlette.responses import Response

from service.front.access_control.tickets import LIFETIME_S
from service.front.dependencies import caller_of, front_of, require_key
from service.front.http.errors import json_response
from service.front.schemas.responses import KEY_REFUSALS

router = APIRouter()


class TicketResponse(BaseModel):
    """What a page shows in place of a key in its first message."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    ticket: str = Field(description="opens one socket, once")
    expires_in_s: float = Field(description="seconds within which it must be used")


@router.post(
    "/v1/tickets",
    dependencies=[Depends(require_key)],
    response_model=TicketResponse,
    responses=KEY_REFUSALS,
)
async def tickets(request: Request) -> Response:
    """Give a ticket for one socket of `/v1/realtime`, for who should not hold the key."""
    front = front_of(request)
    ticket = front.tickets.issue(caller_of(request), time.monotonic())
    answer = TicketResponse(ticket=ticket, expires_in_s=LIFETIME_S)
    content = answer.model_dump_json(by_alias=True).encode()
    return json_response(content, headers={"Cache-Control": "no-store"})
