// Relative addresses, so that the page works behind a proxy that adds a prefix. No validator: it is on the internet.
window.ui = SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIBundle.SwaggerUIStandalonePreset],
  layout: "BaseLayout",
  deepLinking: true,
  validatorUrl: null,
  oauth2RedirectUrl: new URL("docs/oauth2-redirect", window.location.href).href,
});
