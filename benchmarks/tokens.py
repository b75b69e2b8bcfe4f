"""How far off is a local token count? Run: .venv/bin/python benchmarks/tokens.py

The exact counts come from the simulated API's input token endpoint, which counts with the vocabulary that the model is
believed to have (o200k_base). Estimated are the same texts with that vocabulary (the framing is the simulator's own, so
this must be exact), with another one (cl100k_base: what a wrong guess at an unknown vocabulary does), and by the rule
of thumb of four characters a token. The bound that budgets reserve is compared too: it must never be below.

The texts are pieces of the repository's docs and code, and paragraphs in other languages.
"""

# ruff: noqa: RUF001 - letters of other languages look like Latin ones

import math
import statistics
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import anyio
from openai import AsyncOpenAI

from runmeter.engine import Tokenizer
from runmeter.simulator import Simulator

ROOT = Path(__file__).parent.parent
MODEL = "gpt-6-luna"
"""One whose vocabulary tiktoken does not know: its bound goes by bytes."""
SAME = "gpt-5.6-luna"
"""One whose vocabulary it knows, and is the same."""
OTHER = "gpt-4"
"""One that has another vocabulary."""
PIECE = 1_500
"""Characters of a text."""
MOST = 60
"""Texts of a kind."""

LANGUAGES = {
    "Arabic": (
        "وصل الطرد أمس إلى برلين وهو الآن في انتظار تفتيش الجمارك. من المتوقع أن يصل إلى عنوانكم قبل يوم الجمعة."
    ),
    "Chinese": ("包裹昨天到达柏林,目前正在等待海关检查。预计星期五之前会送到您的地址,请保持电话畅通。"),
    "French": "Le colis est arrivé hier à Berlin, où il attend la douane. Il devrait être livré avant vendredi.",
    "German": "Die Paketverfolgungsnummer steht in der Auftragsbestätigung; zugestellt wird werktäglich vor zwölf Uhr.",
    "Greek": "Το δέμα έφτασε χθες στο Βερολίνο και περιμένει τον τελωνειακό έλεγχο πριν παραδοθεί στο σπίτι σας.",
    "Hebrew": "החבילה הגיעה אתמול לברלין והיא ממתינה לבדיקת המכס לפני שתימסר לכתובת שלכם ביום שישי.",
    "Hindi": ("पार्सल कल बर्लिन पहुँच गया और सीमा शुल्क जाँच की प्रतीक्षा कर रहा है। शुक्रवार तक आपके पते पर पहुँच जाएगा।"),
    "Japanese": ("お荷物は昨日ベルリンに到着し、現在は税関の検査を待っています。金曜日までにお届けする予定です。"),
    "Korean": ("소포는 어제 베를린에 도착했으며 현재 세관 검사를 기다리고 있습니다. 금요일까지 배송될 예정입니다."),
    "Russian": "Посылка вчера прибыла в Берлин и ожидает таможенного досмотра. Её доставят до пятницы.",
    "Swahili": "Kifurushi kilifika Berlin jana na kinasubiri ukaguzi wa forodha kabla ya kufikishwa nyumbani kwako.",
    "Tamil": ("பொதி நேற்று பெர்லினை வந்தடைந்தது, சுங்கச் சோதனைக்காகக் காத்திருக்கிறது. வெள்ளிக்கிழமைக்குள் வந்து சேரும்."),
    "Thai": ("พัสดุมาถึงเบอร์ลินเมื่อวานนี้และกำลังรอการตรวจของศุลกากร คาดว่าจะส่งถึงที่อยู่ของคุณภายในวันศุกร์"),
    "Turkish": "Paket dün Berlin'e ulaştı ve gümrük kontrolünü bekliyor. Cuma gününe kadar teslim edilecek.",
    "Emoji": "📦➡️🇩🇪 ✅ 🕰️ 🧑‍✈️ 🛃🔍 😀👍🏽 🚚💨 🏠🎉 📬 🙏🏿",
}

ESTIMATES: Mapping[str, Callable[[str], int]] = {
    "own vocabulary": lambda text: Tokenizer(SAME).count_messages(text).tokens,
    "other vocabulary": lambda text: Tokenizer(OTHER).count_messages(text).tokens,
    "characters / 4": lambda text: math.ceil(len(text) / 4),
}
BOUNDS: Mapping[str, Callable[[str], int | None]] = {
    "own vocabulary": lambda text: Tokenizer(SAME).bound_messages(text),
    "bytes": lambda text: Tokenizer(MODEL).bound_messages(text),
}


def pieces(*patterns: str) -> Iterator[str]:
    for pattern in patterns:
        for path in sorted(ROOT.glob(pattern)):
            text = path.read_text()
            yield from (text[at : at + PIECE] for at in range(0, len(text), PIECE))


def spread(texts: list[str]) -> list[str]:
    """So many of the texts, from all over."""
    return texts[:: -(-len(texts) // MOST)]


def kinds() -> dict[str, list[str]]:
    return {
        "docs": spread(list(pieces("*.md", "docs/*.md"))),
        "code": spread(list(pieces("engine/*.py", "patterns/*.py", "pyproject.toml"))),
        "languages": list(LANGUAGES.values()),
    }


async def exact(client: AsyncOpenAI, text: str) -> int:
    return (await client.responses.input_tokens.count(model=MODEL, input=text)).input_tokens


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


async def main() -> None:
    async with Simulator() as url, AsyncOpenAI(base_url=url, api_key="sk-simulated") as client:
        print(f"{'relative error of estimates':34}{'texts':>6}{'median':>9}{'p95':>9}{'max':>9}{'bias':>9}")
        ratios: dict[str, list[float]] = {}
        for kind, texts in kinds().items():
            counts = [await exact(client, text) for text in texts]
            for name, estimate in ESTIMATES.items():
                errors = [estimate(text) / count - 1 for text, count in zip(texts, counts, strict=True)]
                sizes = [abs(error) for error in errors]
                figures = (statistics.median(sizes), percentile(sizes, 0.95), max(sizes), statistics.mean(errors))
                print(f"{f'{kind}, {name}':34}{len(texts):6}" + "".join(f"{figure:9.1%}" for figure in figures))
            for name, bound in BOUNDS.items():
                found = [(bound(text) or 0) / count for text, count in zip(texts, counts, strict=True)]
                ratios[f"{kind}, {name}"] = found
        print(f"\n{'bound / exact count':34}{'':6}{'min':>9}{'median':>9}{'max':>9}")
        for name, found in ratios.items():
            print(f"{name:34}{'':6}{min(found):9.2f}{statistics.median(found):9.2f}{max(found):9.2f}")
            assert min(found) >= 1, "a bound was below the count"


if __name__ == "__main__":
    anyio.run(main)
