"use strict";
const form = document.getElementById("limits");
if (form) {
  const slider = document.getElementById("threshold");
  const margin = Number(form.dataset.margin);
  const counts = JSON.parse(document.getElementById("counts").textContent).videos;
  const judge = (value, limit) => (value >= limit ? "same" : value >= limit - margin ? "unsure" : "other");
  const tally = (similarities, limit) => {
    const found = { same: 0, unsure: 0, other: 0 };
    for (const [value, count] of Object.entries(similarities)) found[judge(Number(value), limit)] += count;
    return found;
  };
  const show = (limit) => {
    slider.value = limit;
    document.getElementById("value").textContent = (limit / 1000).toFixed(3);
    const total = { same: 0, unsure: 0, other: 0 };
    counts.forEach((similarities, index) => {
      const found = tally(similarities, limit);
      for (const verdict of Object.keys(total)) total[verdict] += found[verdict];
      const place = document.querySelector(`.counts[data-video="${index}"]`);
      if (Object.keys(similarities).length) place.textContent = `${found.same} same, ${found.unsure} unsure, ${found.other} other`;
    });
    for (const one of document.querySelectorAll("[data-similarity]")) {
      const verdict = judge(Number(one.dataset.similarity), limit);
      one.classList.remove("same", "unsure", "other", "unjudged");
      one.classList.add(verdict);
      const name = one.querySelector(".verdict");
      if (name) name.textContent = verdict;
    }
    const answer = document.getElementById("answer");
    const first = document.createElement("b");
    first.textContent = total.same ? total.same : "Nobody";
    const others = `${total.unsure} unsure, ${total.other} other`;
    const rest = total.same ? ` the same person, ${others}` : total.unsure ? ` for certain: ${others}` : `: none of ${total.other} is similar enough`;
    answer.replaceChildren(first, rest);
  };
  const fromAddress = () => {
    const found = /[#&]threshold=(-?[\d.]+)/.exec(location.hash);
    return found && Number.isFinite(Number(found[1])) ? Math.round(1000 * Number(found[1])) : null;
  };
  const begin = () => {
    const limit = fromAddress();
    if (limit !== null) show(limit);
  };
  slider.addEventListener("input", () => {
    const limit = Number(slider.value);
    show(limit);
    history.replaceState(null, "", `#threshold=${(limit / 1000).toFixed(3)}`);
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", (event) => {
    event.preventDefault();
    history.replaceState(null, "", location.pathname + location.search);
    show(Number(form.dataset.threshold));
  });
  addEventListener("hashchange", begin);
  begin();
}
