"""The agents of the sample data, what they answer and how they fail."""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class SimulatedAgent:
    """`seconds` is the usual time for a task, `weight` its share of all tasks."""

    topic: str
    name: str
    description: str
    tools: tuple[str, ...] = ()
    seconds: float = 0.8
    weight: float = 1.0
    failure_rate: float = 0.004
    errors: str = "service"
    consumers: int | None = None
    paused: bool = False

    def record(self) -> dict[str, Any]:
        """As `agents.json` has it."""
        callback = "call_" + "".join(c if c.isascii() and c.isalnum() else "_" for c in self.name)
        place = zlib.crc32(self.name.encode())
        config: dict[str, Any] = {}
        if self.consumers:
            config = {"reclaim_idle_ms": 60_000, "dlq_retry_limit": 3}
            config["consumer_count"] = self.consumers
        return {
            "callback": f"<function {callback} at 0x7f52{place:08x}>",
            "callback_name": callback,
            "name": self.name,
            "tools": list(self.tools),
            "description": self.description,
            "config": config,
        }


Agent = SimulatedAgent

AGENTS = [
    Agent("file.uploaded", "invoice-parser", "Reads vendor, lines and total from an invoice.",
          ("ocr", "ledger"), 1.6, 2.0, 0.045, "file", 3),
    Agent("file.uploaded", "file-processor", "Stores, thumbnails and indexes every upload.",
          ("s3", "thumbnailer"), 0.42, 5.0, 0.002, "file", 4),
    Agent("file.uploaded", "virus-scanner", "Scans uploads before anybody opens them.",
          ("clamav",), 0.9, 3.0),
    Agent("analysis.requested", "summariser", "Sums up documents in five sentences.",
          ("retriever", "llm"), 1.1, 4.0, 0.001, "model", 2),
    Agent("analysis.requested", "sentiment-analyst", "Rates the mood of customer feedback.",
          ("llm",), 0.7, 2.0, 0.003, "model"),
    Agent("analysis.requested", "trend-finder", "Compares this week with the last ones.",
          ("warehouse", "llm"), 4.2, 0.6, 0.012, "service"),
    Agent("content.created", "moderator", "Classifies user text; retries when the model is busy.",
          ("classifier", "pii scan"), 0.24, 5.0, 0.006, "model", 4),
    Agent("content.created", "seo-tagger", "Suggests titles, tags and a description.",
          ("llm",), 0.8, 1.5, 0.002, "model"),
    Agent("content.created", "image-describer", "Writes alternative texts for pictures.",
          ("vision",), 2.1, 1.2, 0.01, "model"),
    Agent("translation.requested", "翻訳エージェント", "テキストを日本語に翻訳します。",
          ("辞書", "llm"), 1.3, 1.5, 0.004, "model"),
    Agent("translation.requested", "traductor-es", "Traduce textos al español.",
          ("glosario", "llm"), 1.2, 1.4, 0.003, "model"),
    Agent("translation.requested", "übersetzer-de", "Übersetzt Texte ins Deutsche.",
          ("glossar", "llm"), 1.2, 1.4, 0.003, "model"),
    Agent("order.placed", "fraud-checker", "Scores an order and holds doubtful ones.",
          ("rules", "graph"), 0.35, 3.0, 0.004, "service", 2),
    Agent("order.placed", "order-enricher", "Adds customer, region and margin.",
          ("crm",), 0.18, 3.0, 0.008, "service"),
    Agent("order.placed", "warehouse-router", "Chooses the warehouse that ships first.",
          ("stock",), 0.22, 3.0),
    Agent("payment.received", "payment-matcher", "Matches payments with open invoices.",
          ("bank", "ledger"), 0.5, 2.0, 0.01, "payment", 2),
    Agent("payment.received", "receipt-sender", "Sends the receipt to the customer.",
          ("smtp",), 0.6, 2.0, 0.006, "service"),
    Agent("support.ticket", "ticket-classifier", "Finds product, urgency and language.",
          ("classifier",), 0.3, 2.0, 0.002, "model"),
    Agent("support.ticket", "reply-drafter", "Drafts an answer from the knowledge base.",
          ("retriever", "llm"), 2.8, 1.6, 0.008, "model"),
    Agent("support.ticket", "escalation-watcher", "Calls a person when a ticket waits too long.",
          ("pager",), 0.2, 0.5, paused=True),
    Agent("report.scheduled", "report-builder", "Builds the reports of the day.",
          ("warehouse",), 9.0, 0.4, 0.02, "service", 1),
    Agent("report.scheduled", "chart-renderer", "Draws the charts of a report.",
          ("plotter",), 1.9, 0.5),
    Agent("report.scheduled", "report-mailer", "Mails finished reports.",
          ("smtp",), 0.7, 0.4, 0.01, "service"),
    Agent("email.inbound", "email-triager", "Sorts the shared inbox and starts the right task.",
          ("imap", "llm"), 0.9, 1.8, 0.005, "model"),
]  # fmt: skip

# The first of them crashes now and then.
SUPERVISED = ("invoice-parser", "fraud-checker", "report-builder")

ERRORS: dict[str, list[tuple[str, str]]] = {
    "file": [
        ("KeyError", "'file_path'"),
        ("KeyError", "'file_path'"),
        ("ValueError", "page 3 holds no text: scanned without OCR layer"),
        ("FileNotFoundError", "[Errno 2] No such file or directory: '/uploads/2211/scan-07.pdf'"),
    ],
    "model": [
        ("TimeoutError", "model did not answer within 30 s"),
        ("RateLimitError", "429 Too Many Requests: retry after 12 s"),
        ("JSONDecodeError", "Expecting ',' delimiter: line 4 column 18 (char 131)"),
    ],
    "payment": [
        ("PermissionError", "card_declined: insufficient funds (code 51)"),
        ("ValueError", "amount 118,40 is not a decimal number"),
    ],
    "service": [
        ("ConnectionError", "connection to crm.example.com:443 refused"),
        ("TimeoutError", "warehouse query exceeded 20 s"),
    ],
}

CONFIG: dict[str, Any] = {
    "theme": "dark",
    "llm.model": "claude-sonnet",
    "retention.days": 30,
    "feature_flags": {"beta": True, "ratio": 0.25, "names": ["triage", "übersetzung"]},
    "smtp.password": "sample-9f2c-not-real",
    "crm.url": "https://dashboard:sample-secret@crm.example.com/api/v2",
    "operator note": "line 1: invoices from Contoso come as scans\nline 2: ask <finance> first",
}

_VENDORS = ["Contoso", "Acme Ltd", "Müller & Söhne", "Globex", "株式会社サンプル", "Initech"]
_WORDS = [
    "order", "shipment", "invoice", "refund", "contract", "customer", "region", "quarter",
    "forecast", "clause", "evidence", "ticket", "answer", "schedule", "currency", "amount",
    "model", "review", "alert", "document", "context", "question",
]  # fmt: skip


def _sentence(chance: random.Random, least: int, most: int) -> str:
    words = chance.choices(_WORDS, k=chance.randint(least, most))
    return " ".join(words).capitalize() + "."


def answer(agent: SimulatedAgent, chance: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    """What an agent was asked, and what it answered."""
    content: dict[str, Any] = {"text": _sentence(chance, 8, 30), "n": chance.randint(1, 5000)}
    subject = agent.topic.partition(".")[0]
    if subject in ("file", "payment"):
        content["file_path"] = f"/uploads/{chance.randint(1000, 9999)}/document.pdf"
        data: dict[str, Any] = {
            "vendor": chance.choice(_VENDORS),
            "total": round(chance.uniform(12, 9800), 2),
            "currency": chance.choice(["EUR", "USD", "JPY"]),
            "lines": [
                {"text": _sentence(chance, 2, 4), "amount": round(chance.uniform(1, 900), 2)}
                for _ in range(chance.randint(1, 4))
            ],
        }
    elif subject in ("content", "support", "email"):
        scores = {name: round(chance.random(), 3) for name in ("spam", "toxic", "urgent")}
        data = {"label": max(scores, key=lambda name: scores[name]), "scores": scores}
    else:
        data = {"summary": " ".join(_sentence(chance, 6, 14) for _ in range(chance.randint(1, 5)))}
        data["sources"] = [f"doc-{chance.randint(1, 999)}" for _ in range(chance.randint(0, 4))]
    usage = {"prompt_tokens": chance.randint(80, 4000), "completion_tokens": chance.randint(9, 900)}
    return content, {"status": "success", "data": data, "usage": usage}
