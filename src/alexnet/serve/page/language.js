// The language of a page: the browser's, or the one that was chosen.
const STORAGE_KEY = "language";

/** Functions that show the texts of `messages` (language → key → text) in the language of the page. */
export function useLanguages(messages) {
  const preferred = (navigator.languages ?? [navigator.language]).map((tag) => tag.slice(0, 2)).find((tag) => tag in messages);
  let language = localStorage.getItem(STORAGE_KEY) ?? preferred ?? "en";
  if (!(language in messages)) language = "en";
  const listeners = [];

  const text = (key, values = {}) => messages[language][key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
  const formatNumber = (value) => value.toLocaleString(language);
  const formatPercent = (share) => (share > 0.9995 && share < 1 ? "99.9%" : (100 * share).toFixed(1) + "%");

  /** Calls `listener` now, and after every change of the language. */
  function onLanguageChange(listener) {
    listeners.push(listener);
    listener();
  }

  /** Fills in the texts of the page, and starts the language button. */
  function startMessages() {
    const button = document.getElementById("language");
    const languages = Object.keys(messages);
    const next = () => languages[(languages.indexOf(language) + 1) % languages.length];
    onLanguageChange(() => {
      document.documentElement.lang = language;
      for (const element of document.querySelectorAll("[data-text]")) element.textContent = text(element.dataset.text);
      for (const element of document.querySelectorAll("[data-text-label]")) element.setAttribute("aria-label", text(element.dataset.textLabel));
      button.textContent = messages[next()].languageName;
      button.lang = next();
    });
    button.addEventListener("click", () => {
      language = next();
      localStorage.setItem(STORAGE_KEY, language);
      listeners.forEach((listener) => listener());
    });
  }

  return { text, formatNumber, formatPercent, onLanguageChange, startMessages };
}
