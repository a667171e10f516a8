// The page is complete without this script: it changes the language and filters the images.
const root = document.documentElement;
const button = document.getElementById("language");
const show = (language) => {
  root.lang = language;
  button.textContent = language === "ko" ? "English" : "한국어";
  button.lang = language === "ko" ? "en" : "ko";
};
button.hidden = false;
button.addEventListener("click", () => show(root.lang === "ko" ? "en" : "ko"));
show((navigator.language || "en").startsWith("ko") ? "ko" : "en");
const filter = document.querySelector(".filter");
if (filter) {
  filter.hidden = false;
  filter.addEventListener("change", (event) => {
    for (const card of document.querySelectorAll(".gallery > li"))
      card.hidden = event.target.value !== "" && card.dataset.kind !== event.target.value;
  });
}
