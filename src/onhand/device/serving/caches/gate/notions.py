"""English words of doings, qualities and notions, which a statement can say in other words.

None of them names a thing, a person, a place, a number or a colour. Opposites among them are told
apart by their own list.
"""

from typing import Final

from onhand.device.serving.caches.gate.english import FIXED

__all__ = ["LOOSE"]

_VERBS: Final = """
accept access accompany accomplish account achieve acknowledge acquire act adapt add address adjust
administer adopt advise affect afford aid aim allocate allow alter analyse analyze announce answer
anticipate appear append apply appoint appreciate approach arise arrange ask assemble assert assess
assign assist associate assume assure attain attempt attend attract augment authorise authorize
automate avoid await balance base bear become begin behave believe belong benefit bind boost bring
build calculate call capture care carry cast catch categorise categorize cause change characterise
characterize check choose cite claim clarify classify clean clear collect combine come commit
communicate compare compile complete comprehend comprise compute conceive concern conclude conduct
configure confirm connect consider consist construct consult consume contact contain continue
contribute control convert convey cope copy correspond cover craft create customise customize cut
deal decide declare define deliver demonstrate denote depend depict derive describe design
designate desire detail detect determine develop devise differ differentiate direct discover
discuss display distinguish distribute divide document draw drive earn edit effect elaborate
eliminate embed emerge emphasise emphasize employ enable encounter encourage endure engage enhance
ensure entail enter equip establish estimate evaluate examine exceed exchange execute exhibit exist
expect experience explain explore express extend extract face facilitate fail familiarise
familiarize fetch figure fill filter find finish fit fix focus follow force form format formulate
foster fulfil fulfill function gain gather generate get give go govern grant grasp group grow guide
handle happen harness help hold hunt identify ignore illustrate imagine impact implement imply
import improve include incorporate indicate influence inform initialise initialize initiate insert
inspect instruct integrate intend interact interpret introduce investigate invoke involve isolate
iterate join judge justify keep know label last launch lay lead learn leave lend let leverage lie
limit link list listen locate look loop maintain make manage manipulate map mark master match
matter mean measure meet mention merge mind minimise minimize mix model modify monitor move name
navigate need note notice notify observe obtain occur offer operate optimise optimize order
organise organize originate outline overcome own participate pass pay perform permit persist pick
place plan play point portray position possess practice practise precede predict prefer prepare
present preserve prevent proceed process produce promote prompt propose protect prove provide
publish pursue put quote raise range reach react read realise realize reason receive recognise
recognize recommend record recover recur refer reference refine reflect regard register regulate
relate release rely remain remember remind render repair repeat replace report represent request
require reserve reside resolve respect respond rest restrict result resume retain retrieve return
reveal review revise rewrite rotate run satisfy save say search secure see seek seem select send
separate serve set settle shape share shift show signify simplify simulate situate solve sort speak
specify spend split spread stand state stay stem step store strengthen strive structure struggle
study submit substitute suggest suit summarise summarize supply support suppose surround sustain
take talk target teach tell tend term test think tie track trade train transfer transform translate
transmit travel treat trigger try turn undergo understand undertake update use utilise utilize
validate value vary verify view visit visualise visualize wait walk want watch wonder work write
yield
"""
_NOTIONS: Final = """
ability accordance accuracy achievement acquisition action activity adaptation addition adjustment
advancement advice allocation alternative amount analysis anybody anyone anything anywhere
appearance application arrangement array aspect assessment assignment assistance association
assumption attention attribute audience availability awareness background basics basis beginner
behavior behaviour belief bit bunch calculation capability capacity case category chance character
characteristic choice chunk circumstance class classification collection combination command
comment commitment communication comparison compilation component comprehension computation concept
conclusion condition configuration confirmation connection consequence consideration construction
content context contribution conversion core correspondence couple course creation criterion
decision declaration definition degree demand demonstration description designation determination
development deviation difference difficulty direction discovery discussion distinction distribution
documentation dozens ease efficiency effort element emphasis entity essence establishment
estimation evaluation event everybody everyone everything evidence examination example exception
excerpt execution existence expectation explanation exploration expression extension extent
extraction fact factor failure feature field foundation fragment functionality fundamentals goal
growth guidance guideline handful handling host idea identification illustration implementation
importance improvement inclusion indication info information inquiry insight inspection instance
instruction integration intention interaction interest interpretation introduction investigation
issue item iteration job justification kind kinds knowledge lack learning level likelihood
limitation location lot maintenance manner manual mapping meaning means measurement method mode
modification motivation movement nature necessity newcomer notion number objective objectivity
observation occurrence operation opinion opportunity optimization option organisation organization
origin outcome overview part participation passage pattern people performance period permission
person perspective phase phrase piece placement plenty possibility potential prediction preference
preparation presence presentation principle priority problem procedure processing production
progress proof property proportion proposal provision purpose quality quantity query question range
rate ratio reader reality recipe recognition recommendation region relation relationship remainder
removal repetition replacement representation requirement research resource response responsibility
rest retrieval role rule sake sample scenario scope section selection sense sequence series setting
significance similarity situation size skill solution somebody someone something somewhere source
specification stage standard standing statement status storage strategy stuff style subject
substitution success suggestion sum summary symbol system task technique tendency theory thing
thought time tip tool topic total transformation treatment trend trial trouble tutorial type
understanding unit usage user utilisation utilization validation validity variation variety
verification version visualization walkthrough way whatever whenever wherever whichever whole
willingness word wording
"""
_QUALITIES: Final = """
abide able abrupt abruptly absolutely abundant academic academically accessible accidentally
accompanied accordingly accurate accurately acoustic actual adaptable additional additionally
adequate adequately adhere adjustable advanced advantageous aesthetic aesthetically affordable
aforementioned afterwards again aimed alike allocated allowable almost along already alternate
alternatively altogether ample analyst analytical analytically anew another apparent apparently
applicable appropriate appropriately approximate approximately apt artistic artistically associated
attached attentive auditory automatic automatically available aware basic basically beforehand
belonging beneficial biological biologically briefly broad broadly brought capable captured careful
carefully cautious central certain certainly challenging chemically chiefly clearly click clinical
clinically closely collectively comfortable commercial commercially common commonly comparable
comparatively compatible completely complex compliant complicated composed comprehensible
comprehensive comprising computational computationally conceptual conceptually concerned concerning
concise concrete concurrent concurrently configurable configured conform consecutive consecutively
consequently considerable considerably consistent consistently consisting constant constantly
containing contemporary continual continually continuous continuously convenient conveniently
conventional correct correctly corresponding correspondingly costly critical crucial cultural
culturally cumbersome currently customary customisable customizable decoded dedicated deeply
definite definitely deliberately dependent desirable desired detailed determined devoted different
differently difficult digital digitally diligent diligently directly dissimilar distinct
distinctive diverse dramatically drastically due durable earlier easily easy ecological economic
economical economically educational educationally effective effectively efficient efficiently
effortless effortlessly electronic electronically eligible emotional emotionally empirical
empirically enclosed encoded encountered enormously entire entirely environmental environmentally
equal equally equivalent especially essential essentially ethical ethically eventual eventually
everywhere evident evidently exact exceedingly excellent exceptional exceptionally exchangeable
exclusively existent existing experimental experimentally explicit explicitly extensive extensively
extra extraordinarily extremely fair fairly familiar famous fascinating featured final finally
financial financially fine flexible following formally formatted former formerly forthcoming
forward frankly free frequent frequently full fully functional functionally fundamental
fundamentally further furthermore general generally generic genuine given good gradual gradually
grammatical grammatically great greatly guided handy happy hard hassle hasten held helpful hence
hereafter highly historical historically honestly hover however hugely hypothetical identical
ideological imaginable immediate immediately immensely imminent imperative important importantly
impressive inadvertently incorrect incorrectly incredibly incremental incrementally indeed
individual individually industrial inherent initial initially install instantaneous instantly
instead integral intended intentionally interactive interchangeable interested interesting
interestingly intricate involved iterative iteratively kept key knowledgeable known laborious
largely lasting lately later latter led legal legally legible legibly lexical lightweight likely
linguistic linguistically linked literally local locally located logical main mainly major
manageable mandatory manually marked massively mathematical mathematically maximal maybe meaningful
meant meanwhile medical medically mental mentally mentioned mere merely migrate minimal minimum
mistakenly moderately modern modular monolithic moral morally moreover mostly moved multiple mutual
namely native natural naturally nearly neat neatly necessarily necessary needed nevertheless nice
nominally notable notably noteworthy noticeably novel nowadays numerous obtainable obtained obvious
obviously occasional occasionally official officially ongoing openly operational operationally
optimal ordinary original originally ostensibly other otherwise outstanding overall painless
parallel particular particularly partly perfect perfectly perhaps periodic periodically permanent
permanently permissible personal pertaining pertinent philosophical philosophically physical
physically placed plain pleasant political politically popular positioned possible possibly
potentially powerful practical practically preceding precise precisely predefined predominant
predominantly preferable preferably preferred prepared presently press presumably pretty prevalent
previously primarily primary principal principally prior probable probably procedural productive
progressively prominent prompted promptly proper properly prospective psychological psychologically
purely purposely quicken radically rapidly rather reachable readable readily ready realistic
reasonable reasonably recent recently recognisable recognizable recommended recursive recursively
redirect regarding regular regularly related relating relative relatively relevant reliable
reliably religious religiously remarkable remarkably renowned repeatedly resilient respective
respectively responsible responsive retrievable reusable rich right robust rough roughly routine
said satisfactory saved scalable scientific scientifically scroll seamless seamlessly seemingly
semantic semantically separately sequential sequentially serious setup several severe severely
shareable shared sharp significant significantly similar similarly simple simply simultaneous
simultaneously single situated skilled slight slightly smooth smoothly social socially sole solely
solid somewhat sophisticated special specialised specialized specific specifically speed speedy
spiritual spiritually stable statistical statistically steadily steady still stored straightforward
strictly strong strongly structural structurally subsequent subsequently substantial substantially
successful successfully successive successively such sudden suddenly sufficient sufficiently
suitable suitably superb sure surely surprising surprisingly swift swiftly swipe switch syntactic
syntactically systematic tailored taken tap tasked technical technically technological
technologically tedious temporarily temporary terrific textual then theoretical theoretically
thereafter therefore thorough thoroughly thoughtful thus together totally traditional traditionally
transferred tremendously truly typical typically ultimate ultimately understandable undoubtedly
unexpected unexpectedly unique uniquely universal universally unlike unusual upcoming usable useful
usual valid valuable varied various vast vastly verbal verbally versatile viable vigilant virtually
visual visually vital well widely widespread willing wonderful worthwhile wrongly yet
"""
_ACTS: Final = """
abandon absence absorb abstract abundance accelerate acceptance accident accumulate activate
adoption advance advertise advocate affirm aggregate agreement align alleviate ambiguity ambition
analogy analyzing anger annotate anxiety apologise apologize appeal applaud appreciation approval
approve argue argument arrival articulate ascend ascertain aspiration aspire assertion assimilate
audit authority average back band bargain block boil bother bounce bound branch breed browse bundle
burden bypass cache calibrate cancel categorisation categorization caution cease certainty chain
challenge charge chase chat circulate clarification clarity climb closure cluster coach code
coherence coincidence collaborate collaboration collapse commence commencement commission
compatibility compete competence competition complain complement completion complexity complication
compose composition compress compression compromise concatenate concentrate concentration
confidence confine conflict confront confuse confusion conjunction connectivity consensus consent
conserve consistency consolidate constrain constraint consumption contemplate contend continuation
continuity contradiction contrast convenience convention converge conviction cooperate cooperation
coordinate coordination count couple courage coverage crawl creativity credibility credit crisis
criticise criticize cultivate curate cure curiosity custom damage danger debate debug dedication
deduce deem default defect defend defer deficiency degrade delay delegate delete deletion
deliberate density dependence dependency deploy deployment destruction detach detection deteriorate
dictate digest dignity dilemma dimension diminish disagreement discipline disclose discount
discourage dismiss dispatch dispose dispute disruption distance distort diversity division dominate
double doubt download draft drag drop duplicate duration duty dwell eagerness educate education
effectiveness elect elevate elicit elimination emergence emit emotion emulate encode encompass
encouragement endorse enforce enhancement enjoyment enlarge enrich enroll entertain enthusiasm
entirety envision equality equate escape essay evolve excess excitement exclude exclusion excuse
exercise exert expansion expense expertise explode exploit export expose exposure facility fade
familiarity fault favor favour fear feed feel fight finance finding fire flag flaw flexibility
float flow fluctuate fluency forecast forget forgive formation formatting freeze frequency
friendship frustrate fuel fulfillment fund gauge gaze generalise generalize glance graduate
gratitude greet guarantee guess habit halt happiness harm harmony hazard hesitate highlight hint
hire honor hope host hurry hypothesis identity illusion imagination impose impress impulse incident
inclination increment induce infer inference inflict inherit inhibit initiative inject innovation
inquire inspiration inspire installation instinct institute intelligence intensity interfere
interference interrupt interval intervene intuition invent invention invert invest invite
involvement judgement judgment lesson liability liberty lift load lock log logic lower luck luxury
majority manifest manufacture mature mechanism memory merit mislead mission mistake moment mood
morality motion motive mount multiply mutate mystery negotiate nest norm normalise normalize
nourish novelty obey object obligation oblige obscure obstacle obstruct occupy odds omission oppose
opposition outlook outperform output overlap overlook oversee overwrite ownership pack parallelise
parallelize parameter parse partition passage passion patience pause peculiarity perceive
perception perfection permutation persistence persuade pertain philosophy pleasure plot popularity
portion pose postpone pour praise preach precaution precision predefine predicament prejudice
prescribe pressure prestige pretend prevail prevention price pride print privilege probability
probe proclaim productivity profit program prohibit prohibition project prominence promise
promotion propagate prospect protection prototype provoke proximity publication pull pursuit push
qualify quest quit rank rationalise rationalize reaction readiness realisation realization
reasoning reassure rebuild recall reception reconsider reconstruct recovery recreate recruit
redefine redirection reduce reduction reflection refusal regain registration regulation reinforce
reject rejection relevance reliability reliance relief reload remainder remark remedy reminder
renew renovate reorganise reorganize rephrase reproduce reputation reschedule resemblance resemble
reset reshape resist resistance resolution restore restriction restructure retention retry reuse
reverse revision reward risk rotation route sacrifice satisfaction scale scan schedule scheme score
screen security seize sensation separation severity shortage shortcoming shuffle signal silence
simplicity simulation sincerity skepticism skip slice slide specialise specialize speculation spell
stabilise stability stabilize stack stance standardise standardize stimulate stimulus stipulate
stream stress stretch strip subscribe succeed suffer suitability supervise supervision suppress
surpass survive suspect suspend suspicion swap sweep symptom synchronise synchronize synthesis
synthesise synthesize tackle tailor talent temptation tension terminate termination testify
testimony theme threat tighten tokenise tokenize tolerance tolerate toss trace tradition training
transaction transcribe transition translation transmission transpose trim trust truth tune
uncertainty unify uniqueness unite upgrade uphold upload urge urgency utility vagueness velocity
venture verdict viewpoint violate violation virtue visibility vision void volume vote vulnerability
warn waste weaken weakness wealth weigh welcome welfare widen wisdom wish withdraw withstand worry
worsen worth wrap
"""
LOOSE: Final = frozenset(f"{_VERBS} {_NOTIONS} {_QUALITIES} {_ACTS}".split()) - FIXED
"""Words that may differ where most of a statement is said anew."""
