"""A cursor is taken as it was given out, or refused."""

from base64 import urlsafe_b64encode

import pytest

from service.paging import Window, position

BY_ID = ["jobs", "models", "datasets", "deletion-requests", "webhooks"]
BY_NUMBER = ["models/cnn/versions", "models/cnn/lineage"]

IDS = [
    "", "x", "é", "\0", "0190a1b2-0000-7000-8000-00000000000", "A" * 36,
    "0190A1B2-0000-7000-8000-000000000000", "{0190a1b2-0000-7000-8000-000000000000}",
    "urn:uuid:0190a1b2-0000-7000-8000-000000000000", "0190a1b2000070008000000000000000",
    " 0190a1b2-0000-7000-8000-000000000000", "1",
]  # fmt: skip
NUMBERS = [
    "-1",
    "+5",
    " 5",
    "05",
    "5.0",
    "1_0",
    "5e1",
    "0x5",
    str(2**31),
    str(2**63),
    "9" * 70,
]


def encoded(text: str) -> str:
    return urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


@pytest.mark.parametrize("path", [*BY_ID, *BY_NUMBER, "audit/events"])
async def test_an_invented_cursor_is_refused(client, model, problem, path):
    invented = ["?", "%00", "é", "!!!!", "MTIz=", "MTI=", "MTJ", "MT-_", " ", "A" * 36]
    if path in BY_ID:
        invented += map(encoded, IDS)
    else:
        too_high = str(2**63) if path == "audit/events" else str(2**31)
        invented += [encoded(text) for text in NUMBERS if text != str(2**31)] + [encoded(too_high)]
    for cursor in invented:
        response = await client.get(f"/v1/{path}", params={"cursor": cursor})
        problem(response, 422, "invalid-cursor")


@pytest.mark.parametrize("number", [0, 7, 2**31 - 1])
async def test_every_number_that_a_list_may_give_out_is_taken(client, model, number):
    for path in [*BY_NUMBER, "audit/events"]:
        response = await client.get(f"/v1/{path}", params={"cursor": encoded(str(number))})
        assert response.status_code == 200, response.text


def test_the_last_position_of_all_is_taken():
    assert Window(cursor=encoded(str(2**63 - 1))).after(position) == 2**63 - 1
