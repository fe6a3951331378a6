"""How the API connects."""

from sqlalchemy import make_url, text

from domain.database import async_engine


async def test_plans_are_kept_beside_the_options_of_the_url(database_url):
    url = make_url(database_url).update_query_dict({"options": "-c work_mem=5MB"})
    engine = async_engine(url.render_as_string(hide_password=False))
    async with engine.connect() as connection:
        found = [
            await connection.scalar(text(f"SHOW {setting}"))
            for setting in ("plan_cache_mode", "work_mem")
        ]
    await engine.dispose()

    assert found == ["force_generic_plan", "5MB"]
