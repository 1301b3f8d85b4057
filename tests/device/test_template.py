"""Chat templates: as transformers renders them, and safe whatever is in them."""

import pytest

from onhand.core.errors import BundleCorrupt, InputError, OnhandError
from onhand.device.template import ChatTemplate, Message
from onhand.device.tools.kinds import Tool, ToolCall

CHATML = """\
{%- if messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content %}
            {{- '\\n' + message.content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
LLAMA = """\
{{- bos_token }}
{%- if tools is not none %}{{ raise_exception("no tools") }}{% endif %}
{%- if not date_string is defined %}{%- set date_string = "26 Jul 2024" %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'
        + message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
LLAMA_2 = """\
{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}\
{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}\
{% set system_message = false %}{% endif %}\
{% for message in loop_messages %}\
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}\
{% endif %}\
{% if loop.index0 == 0 and system_message != false %}\
{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}\
{% else %}{% set content = message['content'] %}{% endif %}\
{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}\
{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}\
{% endfor %}"""
REASONER = """\
{%- macro shown(content, with_mark=true) -%}
    {{- ('* ' if with_mark else '') ~ content | replace('\\r', '') -}}
{%- endmacro -%}
{%- set ns = namespace(last=-1, seen=[]) -%}
{%- for message in messages[::-1] -%}
    {%- if message.role == 'user' and ns.last < 0 -%}
        {%- set ns.last = messages|length - 1 - loop.index0 -%}
        {%- set ns.seen = ns.seen + [message.content.split('</think>')[-1].lstrip('\\n')] -%}
    {%- endif -%}
{%- endfor -%}
{%- for message in messages %}
{{ loop.index }}/{{ loop.length }} {{ message.role | upper }}: {{ shown(message.content) }}
  {%- if loop.index0 == ns.last %} <last>{% endif %}
  {%- if message.role not in ['user', 'system'] %}{% generation %}
{{ message | tojson }}{{ {'k': [1, 2.5, none, true]} | tojson(indent=2) }}{% endgeneration %}
  {%- endif %}
  {%- if loop.index > 5 %}{% break %}{% endif %}
{% endfor %}
{%- for key, value in messages[0].items() %}{{ key }}={{ value }};{% endfor %}
{{- messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | join(' | ') }}
{{- ns.seen | first | default('none', true) | capitalize }}{{ 7 // 2 * 2 ** 3 - 1 % 2 }}
{{- unk_token is defined }}{{ messages[0].missing is defined }}{{ 'ab' * 3 }}
"""
TEMPLATES = {"chatml": CHATML, "llama": LLAMA, "llama-2": LLAMA_2, "reasoner": REASONER}
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
TALK = [
    Message("system", "  Be brief. "),
    Message("user", "Turn on the <b>lamp</b> & the 灯\r\n"),
    Message("assistant", ' {"on": "lamp"} '),
    Message("user", "{{ 7 * 7 }} {% raw %}"),
]
TALKS = {"all": TALK, "no system": TALK[1:], "one": TALK[1:2]}
QUESTION = TALK[1:2]


@pytest.mark.parametrize("talk", TALKS)
@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("opens_answer", [True, False])
def test_rendered_as_transformers_does(name: str, talk: str, *, opens_answer: bool) -> None:
    """The same text as `apply_chat_template`, spaces and line ends included."""
    utils = pytest.importorskip("transformers.utils.chat_template_utils")
    conversation = [{"role": m.role, "content": m.content} for m in TALKS[talk]]
    (expected,), _ = utils.render_jinja_template(
        [conversation],
        chat_template=TEMPLATES[name],
        add_generation_prompt=opens_answer,
        **SPECIAL,
    )
    template = ChatTemplate(TEMPLATES[name], special_tokens=SPECIAL)

    assert template.render(TALKS[talk], add_generation_prompt=opens_answer) == expected


def test_chatml_by_hand() -> None:
    """What a model reads, written out."""
    text = ChatTemplate(CHATML).render([Message("system", "Hi"), Message("user", "A")])

    assert text == (
        "<|im_start|>system\nHi<|im_end|>\n<|im_start|>user\nA<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_template_may_refuse_a_conversation() -> None:
    """Its own words reach the caller."""
    with pytest.raises(InputError, match=r"^chat template: cannot render .* roles must alternate"):
        # Whoever asks a server is told this, and not where its bundle lies.
        ChatTemplate(LLAMA_2, special_tokens=SPECIAL, where="here/x.jinja").render(TALK[2:])


def test_long_conversations_are_rendered() -> None:
    """The bound on work grows with what there is to render."""
    talk = [Message("user", "word " * 2000), Message("assistant", "word " * 2000)] * 300
    for source in (CHATML, LLAMA, LLAMA_2):
        assert len(ChatTemplate(source, special_tokens=SPECIAL).render(talk)) > 5_900_000


def test_a_template_can_be_used_again() -> None:
    """Each rendering has its own allowance, also after one that went beyond it."""
    template = ChatTemplate("{% if messages|length > 1 %}{{ 'x' * 10**9 }}{% endif %}fine")
    for _ in range(2):
        with pytest.raises(InputError, match="more work"):
            template.render(TALK)
        assert template.render(QUESTION) == "fine"


def test_the_date_is_there() -> None:
    """`strftime_now` gives today's."""
    assert len(ChatTemplate("{{ strftime_now('%d %b %Y') }}").render(QUESTION)) == 11


def test_roles_and_contents_are_checked() -> None:
    """A slip in a message is named before any template sees it."""
    with pytest.raises(InputError, match="role is 'robot', must be one of system"):
        Message("robot", "hi")
    with pytest.raises(InputError, match="content is int"):
        Message("user", 3)  # type: ignore[arg-type]  # on purpose
    with pytest.raises(InputError, match="no message"):
        ChatTemplate(CHATML).render([])


A = "{% set a = 'x' * 100000 %}"
GROW = "{% set ns = namespace(x=['ab']) %}{% for i in range(60) %}{% set ns.x = STEP %}{% endfor %}"
TURNS = "{% for i in range(99999) %}BODY{% endfor %}"
ATTACKS = {
    "class": "{{ ''.__class__.__mro__ }}",
    "class by item": "{{ ''['__class__']['__mro__'] }}",
    "class by filter": "{{ ''|attr('__class__') }}",
    "class by map": "{{ ['']|map(attribute='__class__')|first|tojson }}",
    "class by format": "{{ '{0.__class__}'.format(1) }}",
    "globals": "{{ raise_exception.__globals__['json'].x }}",
    "namespace": "{{ namespace().__init__.__globals__.x }}",
    "hidden name": "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
    "hidden argument": "{{ namespace(__class__=1) }}",
    "environment": "{{ self._TemplateReference__context.environment.x }}",
    "change": "{{ messages.append(1) }}",
    "change of a message": "{{ messages[0].update(role='x') }}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import 'os' as os %}",
    "extends": "{% extends 'base' %}",
    "range": "{% for i in range(10**9) %}{% endfor %}",
    "loops": TURNS.replace("BODY", TURNS.replace("BODY", "")),
    "loops with filter": TURNS.replace("BODY", "{% for j in range(99999) if false %}{% endfor %}"),
    "loops with length": TURNS.replace(
        "BODY", "{% for j in range(99999) %}{% if loop.length %}{% break %}{% endif %}{% endfor %}"
    ),
    "recursive loop": "{% for x in [1] recursive %}{{ loop(range(99999)) }}{% endfor %}",
    "recursive macro": "{% macro a() %}{{ a() }}{{ a() }}{% endmacro %}{{ a() }}",
    "recursive block": "{% block a %}{{ self.a() }}{% endblock %}",
    "times": "{{ 'x' * 10**10 }}",
    "times reversed": "{{ 10**10 * [1] }}",
    "doubling": GROW.replace("STEP", "ns.x ~ ns.x"),
    "doubling sums": GROW.replace("STEP", "ns.x + ns.x"),
    "doubling lists": GROW.replace("STEP", "[ns.x, ns.x]") + "{{ ns.x }}",
    "doubling tuples": GROW.replace("STEP", "(ns.x, ns.x)") + "{{ ns.x == ns.x[0] }}",
    "doubling tables": GROW.replace("STEP", "{'a': ns.x, 'b': ns.x}") + "{{ ns.x|tojson }}",
    "doubling dict()": GROW.replace("STEP", "dict(a=ns.x, b=ns.x)") + "{{ ns.x|string }}",
    "power": "{{ 10 ** (10 ** 10) }}",
    "squares": "{% set ns = namespace(x=3) %}"
    "{% for i in range(60) %}{% set ns.x = ns.x * ns.x %}{% endfor %}{{ ns.x }}",
    "padding": "{{ 'x'.ljust(10**9) }}",
    "centring": "{{ 'x'|center(10**9) }}",
    "bytes": "{{ (1).to_bytes(10**9) }}",
    "format width": "{{ '{:1000000000}'.format(1) }}",
    "percent width": "{{ '%1000000000d' % 1 }}",
    "date width": "{{ strftime_now('%1000000000Y') }}",
    "json indent": "{{ [1]|tojson(indent=10**9) }}",
    "json separators": A + "{{ [1]|tojson(separators=(a, a)) }}",
    "replace": A + "{{ a|replace('x', a) }}",
    "replace method": A + "{{ a.replace('x', a) }}",
    "join": A + "{{ ([a] * 100000)|join }}",
    "join with": A + "{{ range(99999)|join(d=a) }}",
    "join method": A + "{{ a.join(['x'] * 100000) }}",
    "map": A + "{{ ([a] * 100000)|map('upper')|list|length }}",
    "search": A + TURNS.replace("BODY", "{% if a.count('y') %}{% endif %}"),
    "comparison": A + "{% set b = a ~ '' %}" + TURNS.replace("BODY", "{% if a == b %}{% endif %}"),
    "test": A + "{% set b = a ~ '' %}" + TURNS.replace("BODY", "{% if a is eq(b) %}{% endif %}"),
    "slices": A + TURNS.replace("BODY", "{% set b = a[1:] %}"),
    "text in a loop": "{% set x %}" + TURNS.replace("BODY", "x" * 1000) + "{% endset %}",
    "text in a macro": "{% macro m() %}"
    + "x" * 10_000
    + "{% endmacro %}"
    + TURNS.replace("BODY", "{% set x = m() %}"),
    "paying back": "{{ (0 - 10**9)|_pay }}",
    "lipsum": "{{ lipsum(n=10**7) }}",
    "division": "{{ 1 // 0 }}",
    "undefined": "{{ foo.bar.baz }}",
    "syntax": "{% for %}",
    "brackets": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "long message": A + "{{ raise_exception(a) }}",
    "long source": " " * 2**20,
    "namespace to json": "{% set ns = namespace() %}{% set ns.x = [ns] %}{{ ns|tojson }}",
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_a_hostile_template_is_refused_in_one_sentence(name: str) -> None:
    """Whatever it tries, it ends soon, with an error of ours that is short."""
    with pytest.raises(OnhandError) as caught:
        ChatTemplate(ATTACKS[name], where="x.jinja").render(QUESTION)

    assert isinstance(caught.value, InputError | BundleCorrupt)
    # What fails while it is rendered is told without the place of the bundle.
    assert str(caught.value).startswith(("x.jinja: ", "chat template: "))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_attack_a_namespace_shows_nothing_of_itself() -> None:
    """One that holds itself prints as a word."""
    source = "{% set ns = namespace() %}{% set ns.x = [ns, ns] %}{{ ns }}{{ ns.x }}"

    assert ChatTemplate(source).render(QUESTION) == "<namespace>[<namespace>, <namespace>]"


def test_messages_are_text_and_never_a_template() -> None:
    """What a user writes is not evaluated."""
    text = ChatTemplate(CHATML).render([Message("user", "{{ 7 * 7 }}{% for x in y %}")])

    assert "{{ 7 * 7 }}{% for x in y %}" in text


TOOL_TURNS = (
    "{% for t in tools or [] %}{{ t.function.name }}:{{ t.function.parameters | tojson }};"
    "{% endfor %}{% for m in messages %}{% if 'tool_calls' in m %}"
    "{% for c in m.tool_calls %}{{ c.id }}={{ c.function.name }}"
    "{% for k, v in c.function.arguments | items %},{{ k }}={{ v }}{% endfor %};{% endfor %}"
    "{% elif m.role == 'tool' %}{{ m.tool_call_id }}>{{ m.name }}>{{ m.content }};{% endif %}"
    "{% endfor %}"
)


def test_tools_and_calls_have_the_form_that_templates_know() -> None:
    """As transformers hands them over: arguments are an object, not its text."""
    tool = Tool(name="lamp", description="", parameters={"type": "object"})
    call = ToolCall("i", "lamp", '{"on": true}')
    turns = [
        Message("user", "x"),
        Message("assistant", "", calls=(call,)),
        Message("tool", "lit", call_id="i", name="lamp"),
    ]
    template = ChatTemplate(TOOL_TURNS)

    assert template.render(turns, tools=[tool]) == (
        'lamp:{"type": "object"};i=lamp,on=True;i>lamp>lit;'
    )
    assert template.render(turns[:1]) == ""
