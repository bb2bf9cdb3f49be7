"""Writes templates.json: what transformers makes of conversations, for the server's own rendering to agree with.

    python3 examples/server/tests/make_templates.py          (needs transformers)
"""

import json
from pathlib import Path

import jinja2
from transformers import PreTrainedTokenizerFast

HERE = Path(__file__).parent
TALK = [
    {"role": "system", "content": "  Speak <plainly> & \"well\".\n"},
    {"role": "user", "content": "Who art thou?"},
    {"role": "assistant", "content": "A player.\nNo more. "},
    {"role": "user", "content": "Then play – ‘Hamlet’."},
]

TAGGED = """\
{%- for message in messages %}
    {%- if loop.first and message['role'] != 'system' %}
{{- '<|system|>\\nBe brief.<|end|>\\n' }}
    {%- endif %}
{{- '<|' + message['role'] + '|>\\n' + message['content'] + '<|end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>\\n' }}{%- endif %}
"""

# The first turn takes the instructions of the system in; turns must alternate.
WRAPPED = """\
{% if messages[0]['role'] == 'system' %}
    {% set rules = messages[0]['content'].strip() %}
    {% set turns = messages[1:] %}
{% else %}
    {% set turns = messages %}
{% endif %}
{{ bos_token }}
{% for message in turns %}
    {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{ raise_exception('turns must alternate') }}
    {% endif %}
    {% if message['role'] == 'user' %}
{{ '[Q] ' + ((rules + ' ') if loop.first and rules is defined else '') + message['content'] | trim + ' [/Q]' }}
    {% else %}
{{ ' ' + message['content'] | trim + eos_token }}
    {% endif %}
{% endfor %}
"""

# What longer templates use: macros, a namespace, JSON, slices, methods of texts, a break, tests.
LONG = """\
{%- macro turn(role, text) -%}
    <{{ role | upper }}>{{ text }}</{{ role | upper }}>
{%- endmacro -%}
{%- set ns = namespace(last=none, count=0) -%}
{%- for message in messages[::-1] -%}
    {%- if message.role == 'user' -%}{%- set ns.last = message.content -%}{%- break -%}{%- endif -%}
{%- endfor -%}
{%- for message in messages if message.role != 'system' -%}
    {%- set ns.count = ns.count + 1 -%}
    {%- set text = message.content.rstrip() -%}
    {%- if text.startswith('Who') and not loop.last -%}
        {%- set text = text.split(' ')[-1].replace('?', '!').title() -%}
    {%- endif %}
{{ turn(message.role, text) }}
{%- endfor %}
{{ {'turns': ns.count, 'of': messages | map(attribute='role') | list, 'last': ns.last} | tojson }}
{{ 'tools' if tools else 'no tools' }}{{ '' if documents is defined and documents is not none else ', no documents' }}
{{- ' ' ~ (messages | selectattr('role', 'equalto', 'user') | list | length) }}
"""

CASES = [
    ("tagged", {"chat_template": TAGGED}, None, TALK),
    ("tagged, without rules", {"chat_template": TAGGED}, None, TALK[1:]),
    ("wrapped", {"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": False}}, WRAPPED, TALK),
    ("wrapped, without rules", {"bos_token": "<s>", "eos_token": "</s>", "chat_template": TAGGED}, WRAPPED, TALK[1:]),
    ("wrapped, out of turn", {"bos_token": "<s>", "eos_token": "</s>"}, WRAPPED, [TALK[1], TALK[3]]),
    ("long", {}, LONG, TALK),
    ("long, a single turn", {}, LONG, TALK[1:2]),
    ("one of several", {"chat_template": [{"name": "tool_use", "template": "no"}, {"name": "default", "template": TAGGED}]}, None, TALK),
]


def made(name, config, template, messages):
    case = {"name": name, "tokenizer_config": config, "chat_template": template, "messages": messages}
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(HERE / "../../bard/tokenizer.json"))
    for token in ("bos_token", "eos_token"):
        if token in config:
            setattr(tokenizer, token, config[token] if isinstance(config[token], str) else config[token]["content"])
    own = template or config["chat_template"]
    tokenizer.chat_template = own if isinstance(own, str) else {one["name"]: one["template"] for one in own}
    try:
        case["prompt"] = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except jinja2.TemplateError as error:
        case["refused"] = str(error)
    return case


cases = [made(*case) for case in CASES]
# No template: the form that docs/guides/serve.md says.
plain = "".join(f"{message['role']}: {message['content']}\n\n" for message in TALK) + "assistant:"
cases.append({"name": "plain", "tokenizer_config": {}, "chat_template": None, "messages": TALK, "prompt": plain})
text = json.dumps(cases, indent=1, ensure_ascii=False) + "\n"
(HERE / "templates.json").write_text(text)
