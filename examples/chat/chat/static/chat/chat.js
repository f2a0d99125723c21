// Sends a question, and shows the answer while it comes: each line of the response is JSON.
const composer = document.getElementById("composer");
const list = document.getElementById("messages");

if (composer) {
  const box = composer.elements.question;
  const button = document.getElementById("send");
  let asking = null; // what stops the answer that comes

  const follow = () => list.scrollTo({ top: list.scrollHeight });
  const isAtEnd = () => list.scrollHeight - list.scrollTop - list.clientHeight < 80;

  const add = (role, text) => {
    document.getElementById("hint")?.remove();
    const item = document.createElement("li");
    item.className = role;
    item.textContent = text;
    list.append(item);
    follow();
    return item;
  };

  const lines = async function* (response) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const complete = (rest + value).split("\n");
      rest = complete.pop();
      for (const line of complete) yield JSON.parse(line);
    }
  };

  const ask = async (body) => {
    const item = add("assistant writing", "");
    asking = new AbortController();
    button.textContent = "Stop";
    let isWhole = false;
    try {
      const response = await fetch(composer.action, {
        method: "POST",
        body,
        signal: asking.signal,
      });
      if (!response.ok) throw new Error(`The server answered ${response.status}.`);
      for await (const line of lines(response)) {
        const wasAtEnd = isAtEnd();
        if (line.text) item.append(line.text);
        if (line.error) throw new Error(line.error);
        isWhole = isWhole || Boolean(line.done);
        if (wasAtEnd) follow();
      }
      if (!isWhole) throw new Error("The connection was lost. Ask again.");
    } catch (error) {
      if (error.name === "AbortError") {
        item.classList.add("cancelled");
      } else {
        const fault = document.createElement("p");
        fault.className = "fault";
        fault.setAttribute("role", "alert");
        fault.textContent = error.message;
        item.append(fault);
      }
    } finally {
      asking = null;
      item.classList.remove("writing");
      button.textContent = "Send";
      box.focus();
    }
  };

  composer.addEventListener("submit", (event) => {
    event.preventDefault();
    if (asking) {
      asking.abort();
      return;
    }
    const question = box.value.trim();
    if (!question) return;
    const body = new FormData(composer);
    if (document.getElementById("hint")) {
      // The first question names the conversation, here as in the database.
      for (const each of document.querySelectorAll("main h1, [aria-current=page]")) {
        each.textContent = question.slice(0, 80);
      }
    }
    add("user", question);
    box.value = "";
    ask(body);
  });

  box.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    if (!asking) composer.requestSubmit();
  });

  follow();
}
