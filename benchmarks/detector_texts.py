"""Sentences with personal data in them, and with what only looks like it; all of it made up."""

# ruff: noqa: RUF001 - full-width punctuation is how Chinese is written

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from onhand.device.privacy.digits import luhn_holds
from onhand.device.privacy.spans import Kind

__all__ = ["Sentence", "sentences"]

_EN: Final[Mapping[str, Sequence[str]]] = {
    "email": ("You can write to {} any time.", "Please add {} to the list", "My mail: {}, thanks."),
    "phone": ("Call me on {} after six.", "My number is {}.", "Reach the office: {} (day)"),
    "card": ("Charge my card {} please.", "The number is {}, exp 04/27.", "Visa or not: {}"),
    "iban": ("Send it to {} by Friday.", "IBAN {} belongs to my aunt.", "account {}."),
    "id": ("My ID is {}.", "The form wants {} here", "Registered under {}, I think."),
    "host": ("I cannot reach {} from here.", "ssh {} fails", "The camera is at {}, port 80."),
    "url": ("Open {} and look.", "curl {} gives 500", "The database is {}."),
    "secret": ("{}", "Why does this fail? {}", "From my notes: {} (old)"),
}
_ZH: Final[Mapping[str, Sequence[str]]] = {
    "email": ("请发到{}，谢谢。", "我的邮箱是{}", "联系{}即可。"),
    "phone": ("我的电话是{}，请回电。", "手机{}随时可以打", "请拨打{}。"),
    "card": ("我的卡号是{}。", "请从{}扣款", "银行卡{}已经过期了"),
    "iban": ("请汇到{}，周五之前。", "账户{}是我姑姑的", "IBAN：{}"),
    "id": ("我的身份证号码是{}。", "证件{}丢了", "登记时用的是{}，对吗？"),
    "host": ("我连不上{}。", "摄像头在{}上", "服务器{}没有响应"),
    "url": ("打开{} 看看", "数据库在 {} 。", "访问{}报错"),
    "secret": ("{}", "为什么登录失败？{}", "备忘：{}。"),
}
_HARD_EN: Final = (
    "Upgrade to version {v4} of the firmware.",
    "Release {v3} came out on {date}.",
    "Your order {order} was shipped.",
    "Invoice no. {order} is due {date}.",
    "The commit is {sha}.",
    "md5 of the file: {md5}",
    "ISBN {isbn} is out of print.",
    "The meeting is at {time} on {date}.",
    "It was {float} percent of {thousands}.",
    "Edit logo@2x.png and style@{v3}.css.",
    "def f(self): return self.local + std::vector",
    "The token count is {small}, the password field is empty.",
    "Tracking {order} says {date}.",
    "Between 1990-1995 and 2003-2008 it grew.",
    "Ask @maria about issue #{small}.",
    "See https://example.com/page?id={small}&sort=asc for the rest.",
    "Room {small}, floor 3, 2nd door.",
    "The uuid is {uuid}.",
    "Population {thousands} in {year}.",
    "Section 4.{small}.2 applies.",
)
_HARD_ZH: Final = (
    "请升级到版本{v4}。",
    "订单号{order}已发货。",
    "会议时间是{date} {time}。",
    "这本书的书号是{isbn}。",
    "提交是{sha}。",
    "文件的md5：{md5}",
    "人口{thousands}，面积{float}。",
    "发票{order}已开。",
    "第{small}章第{small}节",
    "密码错误，请重试。",
    "版本号：{v3}，日期：{date}",
    "快递单号{order}，预计{date}到。",
    "序列号 {uuid}",
    "共{small}页，价格{float}元。",
    "参考 https://example.com/a/{small} 。",
    "他在{year}年出生。",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    """One sentence.

    Attributes:
        language: "en" or "zh".
        text: it.
        kind: of the value in it; None where there is none.
        start: where the value begins; 0 without one.
        end: where it ends.
    """

    language: str
    text: str
    kind: Kind | None = None
    start: int = 0
    end: int = 0


def sentences(*, seed: int, of_each: int) -> list[Sentence]:
    """Return sentences in a random order that is always the same.

    Args:
        seed: of the generator.
        of_each: sentences of each kind and language; and as many hard ones as of all kinds.
    """
    drawn = random.Random(seed)  # noqa: S311 (no secret)
    made: list[Sentence] = []
    for language, frames in (("en", _EN), ("zh", _ZH)):
        for kind, choices in frames.items():
            for _ in range(of_each):
                made.append(_with_value(drawn, language, kind, drawn.choice(choices)))  # type: ignore[arg-type]
        hard = _HARD_EN if language == "en" else _HARD_ZH
        for number in range(of_each * len(frames)):
            text = _filled(drawn, hard[number % len(hard)])
            made.append(Sentence(language=language, text=text))
    drawn.shuffle(made)
    return made


def _with_value(drawn: random.Random, language: str, kind: Kind, frame: str) -> Sentence:
    before, after = frame.split("{}")
    value = _MAKERS[kind](drawn)
    lead = ""
    if kind == "secret" and "\0" in value:  # a word that says that a secret follows
        lead, value = value.split("\0")
    value = _written(drawn, value) if kind in {"phone", "card", "id", "iban", "email"} else value
    text = before + lead + value + after
    start = len(before + lead)
    return Sentence(language=language, text=text, kind=kind, start=start, end=start + len(value))


def _written(drawn: random.Random, value: str) -> str:
    """Return a value as somebody may write it: now and then wide, or with what is not seen."""
    way = drawn.random()
    if way < 0.1:
        return "".join(chr(ord(one) + 0xFEE0) if "!" <= one <= "~" else one for one in value)
    if way < 0.15:
        place = drawn.randrange(1, len(value))
        return f"{value[:place]}\u200b{value[place:]}"
    return value.replace("-", drawn.choice("\u2010\u2013\uff0d")) if way < 0.2 else value


def _digits(drawn: random.Random, n: int) -> str:
    return "".join(drawn.choice("0123456789") for _ in range(n))


def _letters(drawn: random.Random, n: int, alphabet: str = "abcdefghijklmnopqrstuvwxyz") -> str:
    return "".join(drawn.choice(alphabet) for _ in range(n))


def _email(drawn: random.Random) -> str:
    name = drawn.choice(("anna", "li.wei", "j_smith", "bob+home", "zhang3", "m-lee", "x"))
    host = drawn.choice(("example.com", "mail.example.org", "qq.com", "uni-x.ac.uk", "firma.de"))
    number = drawn.choice(("", str(drawn.randrange(100))))
    return f"{name}{number}@{host}"


def _phone(drawn: random.Random) -> str:
    mobile = f"1{drawn.choice('3456789')}{_digits(drawn, 9)}"
    area, local = drawn.choice(("010", "021", "0571", "0755")), f"8{_digits(drawn, 7)}"
    north = (
        f"{drawn.choice('2345679')}{_digits(drawn, 2)}",
        f"{drawn.choice('2345679')}{_digits(drawn, 2)}",
    )
    last = _digits(drawn, 4)
    return drawn.choice((
        *(
            mobile,
            f"{mobile[:3]} {mobile[3:7]} {mobile[7:]}",
            f"{mobile[:3]}-{mobile[3:7]}-{mobile[7:]}",
        ),
        *(f"+86 {mobile}", f"+86-{mobile[:3]}-{mobile[3:7]}-{mobile[7:]}", f"86{mobile}"),
        *(f"{area}-{local}", f"({area}){local}", f"{area} {local[:4]} {local[4:]}"),
        *(f"({north[0]}) {north[1]}-{last}", f"{north[0]}-{north[1]}-{last}"),
        *(f"+1 {north[0]} {north[1]} {last}", f"+44 20 7946 0{_digits(drawn, 3)}"),
        *(f"+49 30 {_digits(drawn, 7)}", f"06 {last[:2]} {last[2:]} 56 {_digits(drawn, 2)}"),
    ))


def _card(drawn: random.Random) -> str:
    first, n = drawn.choice((
        ("4", 16),
        ("52", 16),
        ("2311", 16),
        ("37", 15),
        ("6222", 19),
        ("6011", 16),
    ))
    digits = first + _digits(drawn, n - len(first) - 1)
    digits += next(check for check in "0123456789" if luhn_holds(digits + check))
    if n == 15:
        return drawn.choice((digits, f"{digits[:4]} {digits[4:10]} {digits[10:]}"))
    gap = drawn.choice(("", " ", "-"))
    return gap.join(digits[at : at + 4] for at in range(0, n, 4))


def _iban(drawn: random.Random) -> str:
    country, n = drawn.choice((("DE", 18), ("FR", 23), ("NL", 0), ("ES", 20), ("GB", 0)))
    if country in {"NL", "GB"}:
        bank = _letters(drawn, 4, "ABCDEFGHIKLMNOP")
        rest = bank + _digits(drawn, 10 if country == "NL" else 14)
    else:
        rest = _digits(drawn, n)
    number = int("".join(str(int(one, 36)) for one in f"{rest}{country}00"))
    iban = f"{country}{98 - number % 97:02d}{rest}"
    gap = drawn.choice(("", " "))
    return gap.join(iban[at : at + 4] for at in range(0, len(iban), 4))


def _id(drawn: random.Random) -> str:
    if drawn.random() < 0.3:
        area = drawn.choice([n for n in range(1, 899) if n != 666])
        return f"{area:03d}-{drawn.randrange(1, 99):02d}-{drawn.randrange(1, 9999):04d}"
    region = drawn.choice(("110105", "310101", "440305", "330106", "620102"))
    born = f"{drawn.randrange(1940, 2015)}{drawn.randrange(1, 13):02d}{drawn.randrange(1, 29):02d}"
    digits = region + born + _digits(drawn, 3)
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    check = "10X98765432"[sum(int(d) * w for d, w in zip(digits, weights, strict=True)) % 11]
    return drawn.choice((digits + check, digits + check, f"{region} {born} {digits[14:]}{check}"))


def _host(drawn: random.Random) -> str:
    pairs = [f"{drawn.randrange(256):02x}" for _ in range(6)]
    hexes = [f"{drawn.randrange(1, 65536):x}" for _ in range(4)]
    return drawn.choice((
        *(
            f"192.168.{drawn.randrange(256)}.{drawn.randrange(1, 255)}",
            f"10.0.{drawn.randrange(256)}.7",
        ),
        *(f"2001:db8::{hexes[0]}:{hexes[1]}", f"fe80::{hexes[2]}:{hexes[3]}:1:2"),
        *(":".join(pairs), "-".join(pairs)),
        *(
            f"nas{drawn.randrange(9)}.local",
            f"db-{drawn.randrange(9)}.prod.internal",
            "printer.lan",
        ),
    ))


def _url(drawn: random.Random) -> str:
    word = _letters(drawn, 4) + _digits(drawn, 4)
    return drawn.choice((
        f"https://anna:{word}@example.com/private/x",
        f"postgres://app:{word}@db.example.com:5432/main",
        f"https://example.com/api?access_token={word}{word}",
        f"ftp://bob:{word}@ftp.example.org",
    ))


def _secret(drawn: random.Random) -> str:
    mixed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    word = _letters(drawn, 6) + _digits(drawn, 3)
    return drawn.choice((
        f"sk-{_letters(drawn, 40, mixed)}",
        f"ghp_{_letters(drawn, 36, mixed)}",
        f"AKIA{_letters(drawn, 16, 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567')}",
        ".".join((
            f"eyJ{_letters(drawn, 20, mixed)}",
            f"eyJ{_letters(drawn, 30, mixed)}",
            _letters(drawn, 40, mixed),
        )),
        f"password: \0{word}",
        f"my password is \0{word}!",
        f"密码是\0{word}",
        f"口令：\0{word}",
        f"api_key = \0{_letters(drawn, 32, '0123456789abcdef')}",
        f"token=\0{_letters(drawn, 24, mixed)}",
        f"验证码\uff1a\0{_digits(drawn, 6)}",
        f"the pin is \0{_digits(drawn, 4)}",
    ))


_MAKERS: Final[Mapping[Kind, Callable[[random.Random], str]]] = {
    "email": _email,
    "phone": _phone,
    "card": _card,
    "iban": _iban,
    "id": _id,
    "host": _host,
    "url": _url,
    "secret": _secret,
}


def _filled(drawn: random.Random, frame: str) -> str:
    year, month, day = drawn.randrange(1990, 2030), drawn.randrange(1, 13), drawn.randrange(1, 29)
    dates = (
        f"{year}-{month:02d}-{day:02d}",
        f"{day:02d}/{month:02d}/{year}",
        f"{year}.{month}.{day}",
    )
    isbn = f"978-{drawn.randrange(10)}-{_digits(drawn, 2)}-{_digits(drawn, 6)}-{_digits(drawn, 1)}"
    hexes = _letters(drawn, 64, "0123456789abcdef")
    orders = (
        f"{year}{month:02d}{day:02d}{_digits(drawn, 6)}",
        _digits(drawn, 9),
        f"SO-{_digits(drawn, 8)}",
    )
    return frame.format(
        v3=f"{drawn.randrange(9)}.{drawn.randrange(30)}.{drawn.randrange(99)}",
        v4=".".join(str(drawn.randrange(1, 40)) for _ in range(4)),
        date=drawn.choice(dates),
        time=f"{drawn.randrange(24):02d}:{drawn.randrange(60):02d}:{drawn.randrange(60):02d}",
        order=drawn.choice((*orders, f"4{_digits(drawn, 15)}")),
        sha=hexes[:40],
        md5=hexes[:32],
        isbn=drawn.choice((isbn, isbn.replace("-", ""))),
        float=f"{drawn.uniform(0, 100):.{drawn.randrange(1, 9)}f}",
        thousands=f"{drawn.randrange(1000, 9_999_999):,}",
        small=drawn.randrange(1, 5000),
        year=year,
        uuid=f"{hexes[:8]}-{hexes[8:12]}-4{hexes[13:16]}-a{hexes[17:20]}-{hexes[20:32]}",
    )
