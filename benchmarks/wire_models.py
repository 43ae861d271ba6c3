"""The page of a conversation as pydantic models, name by name as the wire has them: what people write for this API."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field


class User(BaseModel):
    user_id: int | str | None = None
    name: str | None = None
    email: str | None = None


class Dates(BaseModel):
    received: datetime | None = None
    available: datetime | None = None
    notified: datetime | None = None
    created: datetime | None = None
    read: datetime | None = None


class Moderation(BaseModel):
    status: str | None = None
    reason: str | None = None
    by: str | None = None
    source: str | None = None
    moderation_date: datetime | None = None


class Attachment(BaseModel):
    filename: str | None = None
    original_filename: str | None = None
    type: str | None = None
    size: int | None = None
    potential_security_threat: bool | None = None
    creation_date: datetime | None = None


class Resource(BaseModel):
    id: str | None = None
    name: str | None = None


class Message(BaseModel):
    id: str
    site_id: str | None = None
    client_id: int | None = None
    from_: User | None = Field(None, alias="from")
    to: User | None = None
    status: str | None = None
    subject: str | None = None
    text: str | None = None
    text_translated: str | None = None
    message_date: Dates | None = None
    message_moderation: Moderation | None = None
    message_attachments: list[Attachment] | None = None
    message_resources: list[Resource] | None = None


class Paging(BaseModel):
    limit: int | None = None
    offset: int | None = None
    total: int | None = None


class Status(BaseModel):
    path: str | None = None
    status: str | None = None
    substatus: str | None = None
    status_date: datetime | None = None
    status_update_allowed: bool | None = None
    claim_ids: list[int] | None = None
    shipping_id: int | None = None


class Page(BaseModel):
    paging: Paging | None = None
    conversation_status: Status | None = None
    messages: list[Message]
    seller_max_message_length: int | None = None
