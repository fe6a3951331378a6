"""The interactive documentation, which loads nothing from elsewhere."""

import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

import fastapi_offline
from fastapi import FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from starlette.types import Scope

PAGE = "/docs"
ASSETS = "/docs-assets"
DOCUMENT = "/openapi.json"

STATIC = Path(fastapi_offline.__file__).parent / "static"

POLICY = (
    "default-src 'none'; script-src 'self' 'sha256-{digest}'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""It runs its own scripts and the one in the page, and asks nobody but this service."""


class Assets(StaticFiles):
    """The page's scripts and styles, which change only with the version."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """As the base class, and a cache may keep it if it asks whether it is still the same."""
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        return response


def install(app: FastAPI) -> None:
    """Serve the page and its assets."""
    app.mount(ASSETS, Assets(directory=STATIC), name="documentation")

    @app.get(PAGE, include_in_schema=False)
    async def show_documentation(request: Request) -> HTMLResponse:
        root = request.scope.get("root_path", "")
        page = get_swagger_ui_html(
            openapi_url=f"{root}{DOCUMENT}",
            title=f"{app.title} - Swagger UI",
            swagger_js_url=f"{root}{ASSETS}/swagger-ui-bundle.js",
            swagger_css_url=f"{root}{ASSETS}/swagger-ui.css",
            swagger_favicon_url=f"{root}{ASSETS}/favicon.png",
        )
        (script,) = re.findall(rb"<script>(.*?)</script>", bytes(page.body), re.DOTALL)
        digest = b64encode(sha256(script).digest()).decode("ascii")
        page.headers["Content-Security-Policy"] = POLICY.format(digest=digest)
        return page
