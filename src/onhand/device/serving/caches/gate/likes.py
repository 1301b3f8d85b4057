"""English words that stand for one another and opposites, beside those of the lexicon."""

from typing import Final

__all__ = ["OPPOSITE", "SAME"]


def _listed(text: str) -> list[str]:
    return text.split()


def _lines(text: str) -> list[str]:
    return text.strip().splitlines()


SAME: Final = tuple(
    frozenset(group.split())
    for group in _lines(
        """
use utilize utilise employ
specify designate indicate
iterate cycle loop
let allow permit enable
execute run
produce generate create
determine specify define
suggest recommend advise
correctly properly
hold store
substitute replace
quantity number
locate find
avoid prevent
refer consult
mention reference
related corresponding
fetch load
retrieve select
retrieve load
pass supply
cast convert
provide give
give return
yield return
illustration example
foundation base basis
library package
specified provided given
useful beneficial advantageous
typically usually normally
individually independently separately
adjust alter
instruction guideline
deprecate discontinue
necessary required
various different
specific particular
entire whole complete
get obtain
retrieve fetch obtain
purpose aim goal objective
delete remove erase
fix repair
phone telephone
mobile cellphone
tv television
bike bicycle
film movie
buy purchase
start begin commence
stop cease
end finish
choose select pick
help assist
show display
require need
method technique
advice guidance
info information
quick fast rapid
big large
small little
many numerous
difference distinction
simple easy
simplest easiest
kind type variety sort
store save
state declare
supply provide furnish
create generate
make create
provide supply
modify alter
change alter
convert transform
contain include
utilization use usage
different distinct
additional extra
also additionally
hence therefore thus
however nevertheless
kid child
doctor physician
car automobile
job occupation
picture image photo photograph
sofa couch
quit exit
configure setup
folder directory
example instance
error mistake
easy simple
hard difficult
cheap inexpensive
expensive costly
answer reply
ask inquire
vital crucial essential
fundamental basic
beginning start
assure ensure guarantee
attempt try
build construct
collect gather
connect link
depict portray
detect discover
discuss debate
divide split
examine inspect
finish complete
fix correct
form shape
gift present
happen occur
immediately instantly
improve enhance
join combine merge
keep retain preserve
mend repair
mostly mainly primarily chiefly
need requirement
observe notice
obtain acquire
own possess
part portion
place put
possible feasible
previous prior
protect safeguard
quickly rapidly swiftly
receive get
regulation rule
remain stay
reply respond
result outcome
rule principle
seek search
shut close
speak talk
story tale
sufficient enough
totally entirely completely fully
trip journey
understand comprehend
verify check confirm
website site
handle manage
imply mean
unique distinctive
several multiple
appear seem
assign allocate
document documentation
article essay
lawyer attorney
illness disease sickness
rubbish garbage trash
holiday vacation
flat apartment
lift elevator
petrol gasoline
shop store
""".replace("_", "")
    )
)
"""Words that stand for one another, beside what the lexicon knows."""

OPPOSITE: Final = tuple(
    pair.split("/")
    for pair in _listed(
        """
enable/disable activate/deactivate install/uninstall lock/unlock open/close upload/download
import/export push/pull encrypt/decrypt accept/decline accept/reject accept/refuse allow/forbid
allow/block permit/prohibit include/exclude cover/exclude gain/lose win/lose buy/sell lend/borrow
arrive/depart arrive/leave enter/exit enter/leave start/stop begin/end begin/finish raise/lower
increase/decrease increase/reduce rise/fall rise/set grow/shrink expand/shrink expand/collapse
add/remove add/delete add/subtract create/delete create/destroy build/destroy insert/remove
insert/delete save/load save/discard save/delete save/spend read/write send/receive give/take
give/receive teach/learn ask/answer push/pop attach/detach connect/disconnect mount/unmount
subscribe/unsubscribe follow/unfollow mute/unmute hide/show appear/disappear freeze/thaw
freeze/boil melt/freeze heat/cool warm/cool brighten/dim tighten/loosen fill/empty load/unload
pack/unpack wrap/unwrap zip/unzip compress/decompress compress/extract compress/expand love/hate
like/dislike praise/blame pass/fail succeed/fail hire/fire employ/dismiss deposit/withdraw
export/import ascend/descend advance/retreat attack/defend agree/disagree approve/reject
confirm/cancel continue/stop continue/pause pause/resume play/pause sit/stand wake/sleep live/die
laugh/cry forget/remember find/lose keep/discard merge/split join/split join/leave
combine/separate multiply/divide inhale/exhale push/drag positive/negative advantage/disadvantage
pro/con benefit/drawback benefit/risk maximum/minimum max/min upper/lower top/bottom front/back
head/tail first/last early/late before/after cheap/expensive rich/poor strong/weak heavy/light
thick/thin wide/narrow deep/shallow tall/short long/short fast/slow hard/soft hard/easy
difficult/easy safe/dangerous legal/illegal public/private local/remote internal/external
input/output source/target source/destination client/server sender/receiver buyer/seller
employer/employee landlord/tenant parent/child husband/wife man/woman boy/girl male/female
brother/sister king/queen morning/evening day/night summer/winter north/south east/west
inflation/deflation introvert/extrovert optional/required optional/mandatory optional/compulsory
available/unavailable active/inactive active/passive visible/invisible valid/invalid true/false
right/wrong correct/incorrect same/different larger/smaller bigger/smaller greater/smaller
greater/lesser higher/lower taller/shorter older/younger older/newer faster/slower warmer/cooler
warmer/colder hotter/colder cheaper/dearer longer/shorter largest/smallest biggest/smallest
highest/lowest oldest/youngest oldest/newest fastest/slowest longest/shortest most/least
better/worse best/worst more/less many/few
temporary/permanent temporarily/permanently automatic/manual automatically/manually
explicit/implicit explicitly/implicitly similar/different similarity/difference like/unlike
success/failure simple/complex easy/complicated general/specific generally/specifically local/global
locally/globally common/rare partly/completely partially/fully initial/final initially/finally
frequently/rarely gain/loss win/loss presence/absence accept/deny confirm/deny admit/deny
strength/weakness beginning/end minimize/maximize minimise/maximise deep/superficial
separately/together individually/collectively primary/secondary major/minor
"""
    )
)
"""Pairs that a question turns on, beside those of the lexicon."""
