"""If AWS throttles or denies a call, or the credentials expire, each page says so in a sentence and
recovers by itself."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.config import Config

from client.aws import REGION
from client.places import Place
from client.template import Template
from console.data import Lake
from console.operations import Operator
from tests.console.world import Shop, order, orders

WITHOUT = "the console is not installed: make test-console installs it"
testing = pytest.importorskip("nicegui.testing", reason=WITHOUT)
app = pytest.importorskip("console.app", reason=WITHOUT)
look = pytest.importorskip("console.look", reason=WITHOUT)

# Name -> error code of S3, error code of other services, text on the page
TROUBLES = {
    "throttled": ("SlowDown", "ThrottlingException", "AWS gets too many requests"),
    "denied": ("AccessDenied", "AccessDeniedException", "docs/iam.md names the policies"),
    "expired": ("ExpiredToken", "ExpiredTokenException", "The AWS credentials have expired"),
}
LOOKS = 6000  # checks of a page, a tenth of a second apart; a busy machine needs many


class Body:
    """The body of a response, as botocore reads it."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def stream(self, **_: Any) -> Any:
        yield self.content


class StandIn:
    """Answers requests with an error while `trouble` is set; else they reach the local AWS."""

    def __init__(self) -> None:
        self.trouble = ""
        self.logins = 0

    def session(self) -> boto3.Session:
        """Return a session whose requests pass through `answer`."""
        self.logins += 1
        session = boto3.Session("local", "local", region_name=REGION)
        session.events.register("before-send.*", self.answer)
        return session

    def place(self, shop: Shop) -> Place:
        """Return the shop as an environment whose requests pass through `answer`."""
        template = Template.load(endpoint=shop.aws.endpoint)
        config = Config(s3={"addressing_style": "path"}, retries={"max_attempts": 0})
        return Place.of("prod", template.outputs(), self.session, config, shop.aws.endpoint)

    def answer(self, request: AWSRequest, **_: Any) -> AWSResponse | None:
        if not self.trouble:
            return None
        of_s3, code, _ = TROUBLES[self.trouble]
        if "X-Amz-Target" in request.headers:
            body = json.dumps({"__type": code, "message": "the stand-in says no"}).encode()
            return AWSResponse(request.url, 400, {}, Body(body))
        xml = f"<Error><Code>{of_s3}</Code><Message>the stand-in says no</Message></Error>"
        return AWSResponse(request.url, 403, {}, Body(xml.encode()))


@pytest.fixture
def stand_in() -> StandIn:
    return StandIn()


@pytest.fixture
def console(shop: Shop, stand_in: StandIn) -> Any:
    """A console of the shop with an empty cache."""
    lake = Lake(stand_in.place(shop))
    return look.Console(lake, Operator(lake, allowed=True))


async def see(user: Any, text: str) -> None:
    await user.should_see(text, retries=LOOKS)


# Page -> text that it shows when AWS answers again
PAGES = {
    "/": "Needs attention",
    "/runs": "outcomes",
    "/run?run={run}": "Where every row went",
    "/rejects": "invalid_total_amount",
    "/files": "orders/2025-04-01.csv",
    "/file?path=orders/2025-04-01.csv": "archive",
    "/key?dataset=orders&key=1": "In clean_orders now",
    "/sql": "Nothing yet.",
    "/tables?table=clean_orders": "2025-04-02",
}


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("page", PAGES)
def test_a_page_says_what_aws_refuses_and_goes_on_by_itself(
    shop: Shop, console: Any, stand_in: StandIn, page: str, trouble: str
) -> None:
    newest = console.lake.runs.recorded(1)[0].run_id
    console.lake.memory.__init__(console.lake.stamp)  # type: ignore[misc]

    async def visit() -> None:
        async with testing.user_simulation() as user:
            app.register(console)
            stand_in.trouble = trouble
            await user.open(page.format(run=newest))
            await see(user, TROUBLES[trouble][2])
            stand_in.trouble = ""
            await see(user, PAGES[page])
            await user.should_not_see(TROUBLES[trouble][2], retries=LOOKS)

    asyncio.run(visit())
    assert (stand_in.logins > 1) is (trouble == "expired"), "only a login makes new clients"


def test_a_page_that_follows_keeps_what_it_shows_while_aws_refuses(
    shop: Shop, console: Any, stand_in: StandIn
) -> None:
    async def visit() -> None:
        async with testing.user_simulation() as user:
            app.register(console)
            await user.open("/")
            await see(user, "Needs attention")
            stand_in.trouble = "throttled"
            await see(user, "AWS gets too many requests")
            await user.should_see("Needs attention")
            stand_in.trouble = ""
            await user.should_not_see("AWS gets too many requests", retries=LOOKS)

    asyncio.run(visit())


def test_a_running_execution_is_followed_through_the_trouble(
    shop: Shop, console: Any, stand_in: StandIn
) -> None:
    async def visit() -> None:
        async with testing.user_simulation() as user:
            app.register(console)
            await user.open(f"/run?run={run_id}")
            await see(user, "running")
            stand_in.trouble = "denied"
            await see(user, "docs/iam.md names the policies")
            stand_in.trouble = ""
            shop.hold.set()
            await see(user, "Where every row went")

    shop.hold.clear()
    try:
        run_id = console.operator.load()
        shop.aws.upload("orders/2025-04-09.csv", orders(order(90, day=9)))
        asyncio.run(visit())
    finally:
        shop.hold.set()
        shop.aws.wait_until_idle(120)
