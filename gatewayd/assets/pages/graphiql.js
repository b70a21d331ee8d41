ReactDOM.createRoot(document.getElementById("graphiql")).render(
  React.createElement(GraphiQL, {
    fetcher: GraphiQL.createFetcher({ url: window.location.pathname }),
    defaultQuery: '{\n  docs(data: [{text: "hello"}], execEndpoint: "/") {\n    id\n    text\n  }\n}\n',
  }),
);
