"use strict";

// A chat over /v1/chat/completions: what it streams is shown as it comes.

const element = (id) => document.getElementById(id);
const conversation = [];
let asking = null; // an AbortController while an answer is on its way

function shown(kind, text) {
  element("hint")?.remove();
  const added = document.createElement("p");
  added.className = kind;
  added.textContent = text;
  element("messages").append(added);
  added.scrollIntoView({ block: "end" });
  return added;
}

// The data of each event of an answer, as soon as its last byte is there.
async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    const whole = text.split("\n\n");
    text = whole.pop();
    for (const event of whole) {
      if (event.startsWith("data: ")) yield event.slice("data: ".length);
    }
  }
}

async function failure(answer) {
  try {
    return (await answer.json()).error.message;
  } catch {
    return `${answer.status} ${answer.statusText}`;
  }
}

async function ask(question) {
  conversation.push({ role: "user", content: question });
  shown("message user", question);
  const bubble = shown("message assistant pending", "");
  asking = new AbortController();
  element("send").hidden = true;
  element("stop").hidden = false;
  let finished = false;
  try {
    const answer = await fetch("/v1/chat/completions", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({
        model: element("model").value,
        messages: conversation,
        temperature: Number(element("temperature").value),
        stream: true,
        stream_options: { include_usage: true },
      }),
      signal: asking.signal,
    });
    if (!answer.ok) throw new Error(await failure(answer));
    for await (const data of events(answer)) {
      if (data === "[DONE]") {
        finished = true;
        break;
      }
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Error(chunk.error.message);
      bubble.append(chunk.choices[0]?.delta.content ?? "");
      bubble.scrollIntoView({ block: "end" });
      if (chunk.usage) shown("note", `${chunk.usage.completion_tokens} tokens`);
    }
    if (!finished) throw new Error("the answer has been cut off");
  } catch (error) {
    if (error.name === "AbortError") shown("note", "stopped");
    else shown("note wrong", error.message);
  } finally {
    bubble.classList.remove("pending");
    bubble.normalize();
    if (bubble.textContent) conversation.push({ role: "assistant", content: bubble.textContent });
    else bubble.remove();
    asking = null;
    element("send").hidden = false;
    element("stop").hidden = true;
    element("question").focus();
  }
}

async function listModels() {
  const answer = await fetch("/v1/models");
  if (!answer.ok) {
    shown("note wrong", await failure(answer));
    return;
  }
  for (const { id } of (await answer.json()).data) element("model").append(new Option(id));
}

element("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const question = element("question").value.trim();
  if (!question || asking) return;
  element("question").value = "";
  ask(question);
});
element("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    element("ask").requestSubmit();
  }
});
element("stop").addEventListener("click", () => asking?.abort());
element("temperature").addEventListener("input", (event) => {
  element("degrees").value = event.target.value;
});
listModels();
