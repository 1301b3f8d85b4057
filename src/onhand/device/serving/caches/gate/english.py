"""What is known of English words, as data."""

from typing import Final

__all__ = [
    "ABILITY",
    "CONTRACTIONS",
    "DUTY",
    "ELSEWHERE",
    "FIRST",
    "FIXED",
    "FUTURE",
    "IRREGULAR",
    "LIGHT",
    "MARKERS",
    "MONTHS",
    "NEGATIONS",
    "NUMBERS",
    "ORDINALS",
    "PASSIVE",
    "PAST",
    "PHRASES",
    "QUESTIONS",
    "SCALES",
    "SECOND",
    "SKIPPED",
    "STATED",
    "TELLING",
    "UNITS",
]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _listed(text: str) -> list[str]:
    return text.split()


def _lines(text: str) -> list[str]:
    return text.strip().splitlines()


def _pairs(text: str) -> dict[str, str]:
    """Read "from=to" pairs."""
    return dict(pair.split("=") for pair in text.split())


CONTRACTIONS: Final = {
    word.replace("_", "'"): tuple(full.split("+"))
    for word, full in _pairs(
        "can_t=can+not cant=can+not cannot=can+not won_t=will+not wont=will+not shan_t=shall+not "
        "dont=do+not doesnt=does+not didnt=did+not isnt=is+not arent=are+not wasnt=was+not "
        "werent=were+not hasnt=has+not havent=have+not shouldnt=should+not wouldnt=would+not "
        "couldnt=could+not whats=what+is whos=who+is hows=how+is wheres=where+is ain_t=is+not "
        "im=i+am ive=i+have let_s=let+us gonna=going+to wanna=want+to gotta=have+to"
    ).items()
}
"""Spellings that are two words; those with an apostrophe and a regular ending are not here."""

SKIPPED: Final = _words(
    "a an the this that these those it its itself be am is are been being was were do does did "
    "doing done has have had having will would shall can could may might should must ought to of "
    "as so there here and please kindly well ok okay hi hello hey hmm oh i me my mine myself you "
    "your yours yourself we us our ours ourselves u ur which whether if let"
)
"""Words that are not compared as they stand; some of them count below."""

LIGHT: Final = _words(
    "really actually exactly basically simply just quite also too very etc some any various "
    "respectively in on at for with into about by via through regarding concerning within upon "
    "per towards toward onto then given own possible able which among over from"
)
"""Words that one of two questions may have and the other not."""

STATED: Final = _words(
    "both either while when where who whose what how why they them their inside during else option "
    "following according used employed utilized utilised serves intended designed purpose up out "
    "each"
)
"""The same for two texts that ask nothing."""

MARKERS: Final = _words(
    "in on at for with into about by via through within of from to against before after without "
    "under over above below behind during until till since except despite between among inside "
    "outside across along around near off out up down than like onto upon towards toward per "
    "and or but if when while because as using"
)
"""Words that say what the next has to do with the rest."""

NEGATIONS: Final = _words(
    "not no never neither nor none nobody nothing nowhere without hardly barely rarely seldom "
    "scarcely except unless excluding lacking minus"
)

FIXED: Final = _words(
    "only all every each most few more less least fewer better best worse worst last next previous "
    "before after until since always often sometimes usually now today tomorrow yesterday "
    "tonight latest old new current except instead off down up out left right above below under "
    "outside against than between first second he she him her his hers "
    "at_least at_most no_longer early late same half double twice if unless "
    "red blue green yellow white black brown orange purple pink grey gray cold hot warm cool high "
    "low big small large little fast slow good bad male female north south east west"
)
"""Words of which none may be missing or stand for another, however long the question."""

QUESTIONS: Final = _words("who whom whose what when where why how")

TELLING: Final = _words(
    "the this that these those its it are were does did doing being having would could should "
    "might must and with from into about which there here please what when where why how who whose "
    "your you our they their without if because between during after before turn show tell give "
    "make find an for to by be can"
)
"""Small words of which a text has to have one to be taken for English."""

ELSEWHERE: Final = _words(
    "der das den dem des ein eine einen einem einer und ist sind nicht wie wer wo wann warum "
    "ich du er sie wir ihr mir dir mich dich mit von zu zum zur auf aus bei nach auch es im kein "
    "de le la les un une et est ne pas que qui quoi dans sur avec pour je tu il elle nous vous ce "
    "cette mon mes tes ses au aux el los las una y con por para como "
    "donde cuando quien mis tus su sus se lo gli di che della sono non "
    "os um uma em na nao mais het een en niet ik jij wij zijn hoe waar wat voor "
    "og til jeg det att och inte som jag hur nie czy jak bir bu ini itu az nem hogy"
)
"""Small words of other languages that share letters and small words with English."""

PAST: Final = _words("did was were had")
FUTURE: Final = _words("will shall would")
DUTY: Final = _words("should must ought need needs")
ABILITY: Final = _words("can could may might")
PASSIVE: Final = _words("be is are was were been being am get gets got")

FIRST: Final = _words("i me my mine myself we us our ours ourselves")
SECOND: Final = _words("you your yours yourself u ur")

NUMBERS: Final = {
    word: value
    for value, word in enumerate(
        _listed(
            "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
            "fifteen sixteen seventeen eighteen nineteen"
        )
    )
} | {
    word: 10 * value
    for value, word in enumerate(
        _listed("twenty thirty forty fifty sixty seventy eighty ninety"), start=2
    )
}

SCALES: Final = {
    "hundred": 100,
    "thousand": 1000,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "lakh": 10**5,
    "crore": 10**7,
    "k": 1000,
}

ORDINALS: Final = {
    word: value
    for value, word in enumerate(
        _listed(
            "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth"
        ),
        start=1,
    )
}

MONTHS: Final = {
    name: number
    for number, names in enumerate(
        _listed(
            "january/jan february/feb march/mar april/apr may june/jun july/jul august/aug "
            "september/sep/sept october/oct november/nov december/dec"
        ),
        start=1,
    )
    for name in names.split("/")
}

UNITS: Final = {
    name: names.split("/")[0]
    for names in _listed(
        "kilogram/kilograms/kg/kgs/kilo/kilos gram/grams/g milligram/milligrams/mg pound/pounds/lb/"
        "lbs ounce/ounces/oz ton/tons/tonne/tonnes kilometre/kilometres/kilometer/kilometers/km "
        "metre/metres/meter/meters centimetre/centimetres/centimeter/centimeters/cm "
        "millimetre/millimetres/millimeter/millimeters/mm mile/miles foot/feet/ft inch/inches "
        "yard/yards litre/litres/liter/liters millilitre/milliliter/ml hour/hours/hr/hrs "
        "minute/minutes/mins sec/secs/seconds day/days week/weeks month/months "
        "year/years/yr/yrs gigabyte/gigabytes/gb/gbs megabyte/megabytes/mb/mbs kilobyte/kilobytes/"
        "kb "
        "terabyte/terabytes/tb gigahertz/ghz megahertz/mhz dollar/dollars/usd/$ euro/euros/eur/€ "
        "yuan/rmb/cny/¥ sterling/£/gbp rupee/rupees/rs/inr/₹ percent/percentage/% celsius/°c "
        "fahrenheit/°f degree/degrees/° watt/watts volt/volts"
    )
    for name in names.split("/")
}
"""Spelling -> unit. Letters that are also words, as "in" and "m", are left as they are."""

PHRASES: Final = {
    tuple(old.split()): tuple(new.split())
    for old, new in (
        line.split(" = ")
        for line in _lines(
            """
how many = how_many
how much = how_much
how long = how_long
how often = how_often
how far = how_far
how old = how_old
how come = why
what time = when
what date = when
what day = when
what place = where
is it possible to = can i
what is the reason for = why
what is the reason = why
what are the reasons for = why
what are the reasons = why
what is the best way to = how
what is the best way for = how
what are the best ways to = how
what are some of the best ways to = how
what are some ways to = how
what are some good ways to = how
what is a good way to = how
what are ways to = how
what is the way to = how
what should i do to = how
is there a way to = how
is there any way to = how
which is the best way to = how
which is the best = what best
tell me = what
can you tell me = what
could you tell me = what
please tell me = what
do you know = what
i want to know = what
i would like to know = what
explain to me = what
explain how = how
explain why = why
does anyone know = what
can you = do
could you = do
would you = do
will you = do
turn on = enable
turned on = enabled
turn off = disable
turned off = disabled
switch on = enable
switch off = disable
shut off = disable
sign in = login
sign into = login
log in = login
log into = login
logged in = login
sign out = logout
log out = logout
set up = configure
sign up = register
get rid of = remove
make sure = ensure
carry out = perform
carried out = performed
make use of = use
a lot of = many
lots of = many
in order to = to
so as to = to
as well as = and
such as = like
due to = because
because of = because
as a result of = because
is able to = can
are able to = can
be able to = can
is possible to = can
going to = will
have to = must
has to = must
need to = must
needs to = must
at least = at_least
at most = at_most
no longer = no_longer
right now = now
at the moment = now
pros and cons = advantages disadvantages
state of the art = cutting edge
does one = do you
can one = can you_
should one = should you
united states of america = usa
united states = usa
u.s.a = usa
u.s = usa
united kingdom = uk
u.k = uk
""".replace("you_", "you")
        )
    )
}
"""Runs of words and what stands for them."""

IRREGULAR: Final = _pairs(
    "made=make given=give taken=take found=find built=build got=get gotten=get wrote=write "
    "written=write went=go gone=go came=come said=say told=tell kept=keep left=leave lost=lose "
    "paid=pay sold=sell bought=buy sent=send spent=spend thought=think brought=bring taught=teach "
    "caught=catch chose=choose chosen=choose broke=break broken=break spoke=speak spoken=speak "
    "drove=drive driven=drive ate=eat eaten=eat fell=fall fallen=fall felt=feel forgot=forget "
    "forgotten=forget grew=grow grown=grow held=hold knew=know known=know led=lead meant=mean "
    "met=meet ran=run rose=rise risen=rise saw=see seen=see shown=show slept=sleep stole=steal "
    "stolen=steal stood=stand swam=swim took=take understood=understand won=win wore=wear "
    "worn=wear "
    "began=begin begun=begin became=become gave=give hid=hide hidden=hide drew=draw drawn=draw "
    "children=child men=man women=woman feet=foot teeth=tooth mice=mouse geese=goose people=person "
    "persons=person wives=wife lives=life knives=knife leaves=leaf data=datum criteria=criterion"
)

PAST_FORMS: Final = _words(
    "wrote went came said told kept lost paid sold bought sent spent thought brought taught caught "
    "chose broke spoke drove ate fell felt forgot grew held knew led met ran rose saw slept stole "
    "stood swam took understood won wore began became gave hid drew made found built got"
)
"""Irregular forms that are, or may be, a past tense."""
