"""What tests of the page do and read again and again."""

from __future__ import annotations

import re
import time
from typing import Any

NEXT = "Qwen/Qwen3-Next-80B-A3B-Thinking"
ONE = "#m=Qwen/Qwen3-8B&e=vllm&c=8192&b=3"
FITS = "#m=Qwen/Qwen3-8B&e=vllm&g=H100+80GB&n=2&tp=2&c=8192&b=3&log=xy"


def total(page: Any, place: int = 0) -> int:
    text = page.locator(".total").nth(place).inner_text()
    found = re.match(r"([\d,]+) B", text)
    assert found, text
    return int(found[1].replace(",", ""))


def until(page: Any, expression: str, given: object = None) -> None:
    """Waits until an expression holds. Playwright's own way evaluates text in the page, which its policy forbids."""
    end = time.monotonic() + 30
    while not page.evaluate(expression, given):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(20)


def settled(page: Any) -> None:
    until(page, "!document.body.hasAttribute('aria-busy')")
    page.wait_for_timeout(100)


def words(page: Any, place: int = 0) -> list[str]:
    """The lines of a command that the page shows."""
    lines: list[str] = page.locator("#commands pre").nth(place).inner_text().splitlines()
    return " ".join(lines).replace("memcurve ", "\nmemcurve ").strip().splitlines()


def focused(page: Any) -> str:
    name: str = page.evaluate("document.activeElement.id || document.activeElement.getAttribute('aria-label') || document.activeElement.tagName")  # fmt: skip
    return name


CONFIG = {
    "model_type": "llama", "hidden_size": 512, "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 2,
    "intermediate_size": 1024, "vocab_size": 1000, "max_position_embeddings": 8192, "torch_dtype": "bfloat16",
}  # fmt: skip
DROP = """([name, text]) => {
  const data = new DataTransfer();
  data.items.add(new File([text], name));
  document.body.dispatchEvent(new DragEvent("dragenter", { dataTransfer: data, bubbles: true, cancelable: true }));
  document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
}"""
