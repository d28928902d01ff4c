// Light or dark, before the first paint: as chosen here before, else as the system is.
(function () {
  const root = document.documentElement, dark = window.matchMedia("(prefers-color-scheme: dark)");
  const stored = () => { try { return localStorage.getItem("memcurve-theme"); } catch { return null; } };
  const apply = () => {
    root.dataset.theme = stored() || (dark.matches ? "dark" : "light");
    const button = document.getElementById("theme");
    if (button) button.setAttribute("aria-pressed", String(root.dataset.theme === "dark"));
  };
  apply();
  dark.addEventListener("change", apply);
  document.addEventListener("DOMContentLoaded", () => {
    apply();
    document.getElementById("theme")?.addEventListener("click", () => {
      const next = root.dataset.theme === "dark" ? "light" : "dark";
      try { localStorage.setItem("memcurve-theme", next); } catch { /* not kept then */ }
      root.dataset.theme = next;
      apply();
    });
  });
  window.addEventListener("beforeprint", () => { root.dataset.theme = "light"; });
  window.addEventListener("afterprint", apply);
})();
