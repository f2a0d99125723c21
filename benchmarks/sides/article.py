"""(c) The article's design on FastAPI: read → release → call → reacquire → write; (d) held.

Written from its description, with the pool that it recommends. Kinder than the original in two
points: one httpx client is shared by all calls, and that client has no limit of connections.
`HELD=1` gives (d): the session of the request stays open across the call, and writes at the end.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated

import httpx
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException
from pydantic import BaseModel
from sqlalchemy import ForeignKey, Text, event, func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

HELD = os.environ.get("HELD") == "1"
URL = os.environ["ANTHROPIC_BASE_URL"] + "/v1/messages"
USERS = 100
ATTEMPTS = 3
TIMEOUT_S = 30.0

engine = create_async_engine(
    os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+asyncpg://", 1),
    pool_size=10,
    max_overflow=20,
    pool_timeout=10,
    pool_pre_ping=True,
    pool_recycle=3600,
)
Session = async_sessionmaker(engine, expire_on_commit=False)
peak = {"checked_out": 0}


@event.listens_for(engine.sync_engine, "checkout")
def _count(*_args):
    peak["checked_out"] = max(peak["checked_out"], engine.pool.checkedout())


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "article_users"
    id: Mapped[int] = mapped_column(primary_key=True)
    prompt_template: Mapped[str] = mapped_column(Text)


class GenerationLog(Base):
    __tablename__ = "article_generation_logs"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("article_users.id"))
    prompt: Mapped[str] = mapped_column(Text)
    result: Mapped[str] = mapped_column(Text)
    tokens_used: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class UsageLog(Base):
    __tablename__ = "article_usage_logs"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int]
    tokens: Mapped[int]
    latency_ms: Mapped[int]


class GenerateIn(BaseModel):
    input: str = ""


async def get_db():
    async with Session() as session:
        try:
            yield session
        except Exception:
            await session.rollback()
            raise


async def call_llm(prompt: str) -> tuple[str, int]:
    for attempt in range(ATTEMPTS):
        try:
            response = await app.state.llm.post(
                URL,
                headers={"x-api-key": "k", "anthropic-version": "2023-06-01"},
                json={
                    "model": "claude-sonnet-5-5",
                    "max_tokens": 1024,
                    "messages": [{"role": "user", "content": prompt}],
                },
            )
            response.raise_for_status()
            data = response.json()
            usage = data["usage"]
            tokens = usage["input_tokens"] + usage["output_tokens"]
            return data["content"][0]["text"], tokens
        except httpx.HTTPStatusError as error:
            if error.response.status_code != 429 or attempt == ATTEMPTS - 1:
                raise
            await asyncio.sleep(2**attempt)
        except httpx.TimeoutException:
            if attempt == ATTEMPTS - 1:
                raise
            await asyncio.sleep(1)
    raise AssertionError("the last attempt answers or raises")


async def log_usage(user_id: int, tokens: int, latency_ms: int) -> None:
    async with Session() as session:
        session.add(UsageLog(user_id=user_id, tokens=tokens, latency_ms=latency_ms))
        await session.commit()


@asynccontextmanager
async def lifespan(app: FastAPI):
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        if not (await connection.execute(select(func.count()).select_from(User))).scalar():
            prompt = "Tell a curious beginner something worth knowing about connection pools."
            users = [{"id": key, "prompt_template": prompt} for key in range(1, USERS + 1)]
            await connection.execute(insert(User), users)
    unlimited = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(timeout=TIMEOUT_S, limits=unlimited) as client:
        app.state.llm = client
        yield
    await engine.dispose()


app = application = FastAPI(lifespan=lifespan)


@app.post("/api/v1/generate/{user_id}")
async def generate(
    user_id: int,
    body: GenerateIn,
    background: BackgroundTasks,
    db: Annotated[AsyncSession, Depends(get_db)],
):
    started = time.monotonic()
    user = await db.get(User, user_id)
    if user is None:
        raise HTTPException(status_code=404, detail="User not found")
    prompt = f"{user.prompt_template}\n\n{body.input}"
    if not HELD:
        await db.close()
    text, tokens = await call_llm(prompt)
    log = GenerationLog(user_id=user_id, prompt=prompt, result=text, tokens_used=tokens)
    if HELD:
        db.add(log)
        await db.commit()
    else:
        async with Session() as session:
            session.add(log)
            await session.commit()
    background.add_task(log_usage, user_id, tokens, int((time.monotonic() - started) * 1000))
    return {"result": text, "tokens": tokens}


@app.get("/api/v1/pool")
async def pool():
    return {"peak_checked_out": peak["checked_out"]}
