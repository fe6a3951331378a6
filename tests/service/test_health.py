from domain.database import async_engine, async_sessions
from service.app import create_app, from_environment
from service.health import _newest_revision
from tests.conftest import KEY, connect, speaking_to


async def test_lives_without_anything(settings):
    async with speaking_to(create_app(settings)) as client:  # its lifespan has not begun
        response = await client.get("/livez")

    assert (response.status_code, response.json()) == (200, {"status": "alive"})


async def test_is_ready_on_the_newest_schema(client):
    response = await client.get("/readyz")

    assert response.status_code == 200
    assert response.json() == {
        "status": "ready",
        "revision": _newest_revision(),
        "broker": "reachable",
    }


async def test_is_degraded_but_ready_without_a_broker(app, client, settings):
    dead = settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"})
    app.state.settings = dead

    response = await client.get("/readyz")

    assert response.status_code == 200
    assert response.json()["status"] == "degraded"
    assert response.json()["broker"] == "unreachable"


async def test_is_not_ready_on_another_schema(app, client, new_database, alembic, problem):
    url = new_database()
    engine = async_engine(url)
    connect(app, async_sessions(engine))

    assert "nothing" in problem(await client.get("/readyz"), 503, "unavailable")["detail"]
    alembic("upgrade", url, "head")
    assert (await client.get("/readyz")).status_code == 200
    async with engine.begin() as connection:
        await connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'older'")
    refusal = problem(await client.get("/readyz"), 503, "unavailable")
    await engine.dispose()

    assert "older" in refusal["detail"]
    assert "alembic upgrade head" in refusal["detail"]


async def test_starts_from_the_environment_and_stops(database_url, servers, monkeypatch, tmp_path):
    monkeypatch.setattr("domain.log.configure", lambda *_, **__: None)
    monkeypatch.setenv("LETHE_DATABASE_URL", database_url)
    monkeypatch.setenv("LETHE_BROKER_URL", servers.broker_url)
    monkeypatch.setenv("LETHE_ADMIN_KEY", KEY)
    monkeypatch.setenv("LETHE_STORE", str(tmp_path))

    app = from_environment()
    async with app.router.lifespan_context(app), speaking_to(app) as client:
        ready = await client.get("/readyz")
        jobs = await client.get("/v1/jobs")

    assert ready.json()["status"] == "ready"
    assert jobs.json() == {"items": [], "next_cursor": None}
